//! A component that imports the host's log and exports nothing.

wit_bindgen::generate!({
    inline: r#"
        package wirehook:plugin@0.1.0;
        interface log {
            enum level { trace, debug, info, warn, error }
            log: func(level: level, message: string);
        }
        world nothing { import log; }
    "#,
    generate_all,
});
