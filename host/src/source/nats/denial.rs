//! What the server forbids a user, as it says it: only over the connection, never as an answer to the one who asked.

/// A subject that the user may not use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::source) struct Denial {
    /// Whether it is publishing that is forbidden, or subscribing.
    pub(in crate::source) is_publish: bool,
    /// The subject.
    pub(in crate::source) subject: String,
}

impl Denial {
    /// Understands such as `Permissions Violation for Subscription to "orders.>" using queue "q"`.
    pub(in crate::source) fn read(words: &str) -> Option<Self> {
        let (operation, rest) = words.strip_prefix("Permissions Violation for ")?.split_once(" to \"")?;
        let is_publish = match operation {
            "Publish" => true,
            "Subscription" => false,
            _ => return None,
        };
        let (subject, _) = rest.split_once('"')?;
        Some(Self { is_publish, subject: general(subject) })
    }

    /// The server's words, and what to change.
    pub(in crate::source) fn describe(&self) -> String {
        let (operation, verb) = if self.is_publish { ("Publish", "publish") } else { ("Subscription", "subscribe") };
        let subject = &self.subject;
        format!(
            "the server says: Permissions Violation for {operation} to \"{subject}\"; let this source's user {verb} to \
             `{subject}`, or give the source another user"
        )
    }
}

/// Without what differs from one message to the next: inboxes, and the numbers that an ack is addressed to.
fn general(subject: &str) -> String {
    let fixed_tokens = match subject.split('.').next() {
        Some("_INBOX") => 1,
        Some("$JS") if subject.starts_with("$JS.ACK.") => 4,
        _ => return subject.to_owned(),
    };
    let fixed: Vec<_> = subject.split('.').take(fixed_tokens).collect();
    format!("{}.>", fixed.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forbidden_is_understood() {
        let check = |words: &str, expected: Option<(bool, &str)>| {
            let expected = expected.map(|(is_publish, subject)| Denial { is_publish, subject: subject.to_owned() });
            assert_eq!(Denial::read(words), expected, "{words}");
        };
        check("Permissions Violation for Subscription to \"e.>\"", Some((false, "e.>")));
        check("Permissions Violation for Subscription to \"e.>\" using queue \"q\"", Some((false, "e.>")));
        check("Permissions Violation for Subscription to \"_INBOX.a.b\"", Some((false, "_INBOX.>")));
        check("Permissions Violation for Publish to \"$JS.API.STREAM.INFO.e\"", Some((true, "$JS.API.STREAM.INFO.e")));
        check("Permissions Violation for Publish to \"$JS.ACK.e.c.1.2.3.4.5\"", Some((true, "$JS.ACK.e.c.>")));
        check("Permissions Violation for Reading to \"e\"", None);
        check("User Authentication Expired", None);
    }
}
