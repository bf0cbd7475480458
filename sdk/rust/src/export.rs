//! From the plugin's function to the component's export.

use crate::bindings::wirehook::plugin::types;
use crate::{Event, Failure, Webhook};

/// Makes a function the plugin's `on-event`. Once in a crate, at its root or in any module.
///
/// The function is a `fn(Event<T>) -> Result<Vec<Webhook>, Failure>` for any `T: serde::de::DeserializeOwned`. Natively
/// nothing is exported, and the function's type is checked all the same.
///
/// ```
/// use wirehook_sdk::{Event, Failure, Webhook};
///
/// fn on_event(event: Event) -> Result<Vec<Webhook>, Failure> {
///     Ok(vec![Webhook::json(&event.entity()?)?])
/// }
///
/// wirehook_sdk::export!(on_event);
/// ```
///
/// A function of another type does not compile:
///
/// ```compile_fail
/// fn on_event(event: String) -> String { event }
///
/// wirehook_sdk::export!(on_event);
/// ```
#[macro_export]
macro_rules! export {
    ($handler:path) => {
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = $crate::__private::check($handler);

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct WirehookPlugin;

            impl $crate::__private::Guest for WirehookPlugin {
                fn on_event(
                    event: $crate::__private::types::Event,
                ) -> ::core::result::Result<
                    ::std::vec::Vec<$crate::__private::types::Webhook>,
                    $crate::__private::types::Failure,
                > {
                    $crate::__private::run($handler, event)
                }
            }

    $crate::bindings::export_subscriber!(WirehookPlugin with_types_in $crate::bindings);
        };
    };
}

/// The type that [`export!`] asks for, checked where nothing is exported.
#[doc(hidden)]
pub const fn check<T>(_handler: fn(Event<T>) -> Result<Vec<Webhook>, Failure>) {}

/// One call as the host makes it.
#[doc(hidden)]
pub fn run<T>(
    handler: fn(Event<T>) -> Result<Vec<Webhook>, Failure>,
    event: types::Event,
) -> Result<Vec<types::Webhook>, types::Failure> {
    #[cfg(target_arch = "wasm32")]
    log_panics();
    match handler(Event::from_contract(event)) {
        Ok(webhooks) => Ok(webhooks.into_iter().map(Webhook::into_contract).collect()),
        Err(failure) => Err(failure.into_contract()),
    }
}

/// A panic ends in a trap, which says nothing: its message and place go to the host's log first.
#[cfg(target_arch = "wasm32")]
fn log_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or("no message");
            match panic.location() {
                Some(place) => crate::log::error!("panicked at {place}: {message}"),
                None => crate::log::error!("panicked: {message}"),
            }
        }));
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::bindings::wirehook::plugin::types;
    use crate::{Event, Failure, Webhook, reject, retry};

    #[allow(clippy::needless_pass_by_value, reason = "the contract gives the event away")]
    fn on_event(event: Event) -> Result<Vec<Webhook>, Failure> {
        match event.subject.as_str() {
            "retry" => Err(retry("later")),
            "reject" => Err(reject("never")),
            "filter" => Ok(vec![]),
            _ => Ok(vec![Webhook::json(&event.entity()?)?]),
        }
    }

    crate::export!(on_event);

    fn run(subject: &str) -> Result<Vec<types::Webhook>, types::Failure> {
        super::run(
            on_event,
            types::Event {
                key: "bus/id/1".into(),
                subject: subject.into(),
                entity_type: String::new(),
                operation: String::new(),
                entity_id: None,
                tenant_id: None,
                timestamp: None,
                entity: Some(b"{\"a\": 1}".to_vec()),
                previous: None,
                attributes: vec![],
                attempt: 1,
            },
        )
    }

    #[test]
    fn each_end_has_its_place_in_the_contract() {
        assert!(matches!(run("retry"), Err(types::Failure::Retry(reason)) if reason == "later"));
        assert!(matches!(run("reject"), Err(types::Failure::Reject(reason)) if reason == "never"));
        assert_eq!(run("filter").unwrap().len(), 0);
        assert_eq!(run("produce").unwrap()[0].body, br#"{"a":1}"#);
    }
}
