//! A plugin's name, and the forms of it that languages want.

use thiserror::Error;

/// Bytes of a plugin's name.
pub const NAME_BYTES_MAX: usize = 64;

/// A plugin's name in every form that a template may ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// `{{name}}`: `order-mails`, as it was given.
    pub name: String,
    /// `{{ident}}`: `order_mails`, for what must be an identifier.
    pub ident: String,
    /// `{{type}}`: `OrderMails`, for what is a type.
    pub type_name: String,
}

/// Why a name can't be a new plugin's.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error(
    "`{name}` can't be a new plugin's name: take a letter a-z, then letters a-z, digits, `-` or `_`, {NAME_BYTES_MAX} at most"
)]
pub struct NameError {
    name: String,
}

impl Names {
    /// The forms of `name`.
    ///
    /// # Errors
    /// When not every toolchain could take it.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
        let goes_on = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
        let ends = name.ends_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || !goes_on || !ends || name.len() > NAME_BYTES_MAX {
            return Err(NameError { name: name.to_owned() });
        }
        Ok(Self {
            name: name.to_owned(),
            ident: name.replace('-', "_"),
            type_name: name.split(['-', '_']).map(capitalised).collect(),
        })
    }

    /// `text` with the names in it.
    pub fn fill(&self, text: &str) -> String {
        text.replace("{{name}}", &self.name).replace("{{ident}}", &self.ident).replace("{{type}}", &self.type_name)
    }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_forms_that_languages_want() {
        let names = Names::new("order-mails_2").unwrap();
        assert_eq!(
            names.fill("{{name}} {{ident}} {{type}} {{other}}"),
            "order-mails_2 order_mails_2 OrderMails2 {{other}}"
        );
    }

    #[test]
    fn what_some_toolchain_could_not_take_is_no_name() {
        for name in ["", "Orders", "2orders", "-orders", "orders-", "or ders", "../orders", "ö", &"a".repeat(65)] {
            let error = Names::new(name).expect_err(name);
            assert!(error.to_string().contains(name), "{error}");
        }
        assert!(Names::new(&"a".repeat(64)).is_ok());
    }
}
