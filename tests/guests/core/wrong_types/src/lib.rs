//! Exports the handler under its right name and version with a function of another type.

wit_bindgen::generate!({
    inline: r#"
        package wirehook:plugin@0.1.0;
        interface handler { on-event: func(event: string) -> result<string, string>; }
        world subscriber { export handler; }
    "#,
});

struct Plugin;

impl exports::wirehook::plugin::handler::Guest for Plugin {
    fn on_event(event: String) -> Result<String, String> {
        Ok(event)
    }
}

export!(Plugin);
