//! A component for somebody else's host.

wit_bindgen::generate!({
    inline: r#"
        package somebody:greeter@1.2.0;
        interface greetings { greet: func(name: string) -> string; }
        world greeter { export greetings; }
    "#,
});

struct Greeter;

impl exports::somebody::greeter::greetings::Guest for Greeter {
    fn greet(name: String) -> String {
        format!("hello {name}")
    }
}

export!(Greeter);
