//! Exports the handler as it should, and needs a capability that no host has.

wit_bindgen::generate!({
    inline: r#"
        package somebody:rocket@1.0.0;
        interface launcher { launch: func() -> u32; }
        world pad { import launcher; }
    "#,
    generate_all,
});

use wirehook_sdk::{Event, Failure, Webhook};

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    let launched = somebody::rocket::launcher::launch();
    Ok(vec![Webhook::bytes(launched.to_string())])
}

wirehook_sdk::export!(on_event);
