//! What a client and a server tell each other before anything else.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde::Serialize;

use crate::secret::Secret;

/// What a server says of itself.
pub(in crate::source) use async_nats::ServerInfo;

/// Who the client is. Never printed.
pub(in crate::source) enum Identity {
    /// Nobody in particular, or whom a certificate names.
    Anonymous,
    User {
        user: String,
        password: Secret,
    },
    Token(Secret),
    /// It signs what the server asks to be signed.
    Nkey(KeyPair),
    /// What an account says of the user, and the user's key.
    Jwt {
        jwt: String,
        key: KeyPair,
    },
}

/// The argument of `CONNECT`.
#[derive(Serialize, Default)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    tls_required: bool,
    name: &'a str,
    lang: &'a str,
    version: &'a str,
    protocol: u8,
    echo: bool,
    headers: bool,
    no_responders: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

/// `CONNECT`, with the nonce of `info` signed, and a `PING` that tells whether it was taken.
///
/// # Errors
///
/// When the key can't sign.
pub(super) fn connect(
    name: &str,
    info: &ServerInfo,
    identity: &Identity,
    is_tls: bool,
) -> Result<Vec<u8>, nkeys::error::Error> {
    let text = |secret: &Secret| String::from_utf8_lossy(secret.expose()).into_owned();
    let sign = |key: &KeyPair| key.sign(info.nonce.as_bytes()).map(|signature| URL_SAFE_NO_PAD.encode(signature));
    let mut connect = Connect {
        tls_required: is_tls,
        name,
        lang: "wirehook",
        version: env!("CARGO_PKG_VERSION"),
        // The server tells of changes of its cluster, and before it goes.
        protocol: 1,
        echo: true,
        headers: true,
        no_responders: true,
        ..Connect::default()
    };
    match identity {
        Identity::Anonymous => {}
        Identity::User { user, password } => (connect.user, connect.pass) = (Some(user.as_str()), Some(text(password))),
        Identity::Token(token) => connect.auth_token = Some(text(token)),
        Identity::Nkey(key) => (connect.nkey, connect.sig) = (Some(key.public_key()), Some(sign(key)?)),
        Identity::Jwt { jwt, key } => (connect.jwt, connect.sig) = (Some(jwt.as_str()), Some(sign(key)?)),
    }
    // Texts and switches can be written.
    let json = serde_json::to_string(&connect).unwrap_or_default();
    Ok(format!("CONNECT {json}\r\nPING\r\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_identity_is_told_in_its_own_members() {
        let info = ServerInfo { nonce: "n".to_owned(), ..ServerInfo::default() };
        let check = |identity: Identity, expected: &[&str]| {
            let told = String::from_utf8(connect("wirehook-bus", &info, &identity, false).unwrap()).unwrap();
            let json = told.strip_prefix("CONNECT ").and_then(|rest| rest.strip_suffix("\r\nPING\r\n")).unwrap();
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            let members = ["user", "pass", "auth_token", "jwt", "nkey", "sig"];
            let found: Vec<_> = members.into_iter().filter(|member| json.get(member).is_some()).collect();
            assert_eq!(found, expected);
            assert_eq!((json["headers"].as_bool(), json["name"].as_str()), (Some(true), Some("wirehook-bus")));
        };
        check(Identity::Anonymous, &[]);
        check(Identity::User { user: "u".to_owned(), password: Secret::new("p") }, &["user", "pass"]);
        check(Identity::Token(Secret::new("t")), &["auth_token"]);
        check(Identity::Nkey(KeyPair::new_user()), &["nkey", "sig"]);
        check(Identity::Jwt { jwt: "j".to_owned(), key: KeyPair::new_user() }, &["jwt", "sig"]);
    }
}
