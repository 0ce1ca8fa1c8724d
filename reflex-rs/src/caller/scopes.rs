//! What a credential allows its caller to do.

use std::fmt;

use strum::{EnumIter, EnumString, IntoEnumIterator, IntoStaticStr};

/// One permission. In the order of their names, which is the order in which they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Cancel tasks.
    Cancel,
    /// Redrive tasks and drop dead letters.
    Operate,
    /// Read tasks, events, costs and dead letters.
    Read,
    /// Submit tasks.
    Submit,
}

impl Scope {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of permissions; written as their names, sorted and separated by commas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    pub const ALL: Self = Self(0b1_1111);

    /// Whether the set contains the scope or `admin`, which includes every other scope.
    #[must_use]
    pub fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let bits = scopes.into_iter().map(Scope::bit);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for scope in Scope::iter().filter(|scope| self.0 & scope.bit() != 0) {
            write!(out, "{separator}{}", scope.as_str())?;
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::{Scope, Scopes};

    #[test]
    fn a_scope_allows_only_itself_and_admin_allows_everything() {
        for scope in Scope::iter() {
            let only: Scopes = [scope].into_iter().collect();
            assert_eq!(only.to_string(), scope.as_str());
            for asked in Scope::iter() {
                let expected = asked == scope || scope == Scope::Admin;
                assert_eq!(only.allow(asked), expected, "{scope:?} {asked:?}");
            }
            assert!(!Scopes::default().allow(scope));
        }
        assert_eq!(Scope::iter().collect::<Scopes>(), Scopes::ALL);
    }

    #[test]
    fn they_are_written_in_the_order_of_their_names() {
        assert_eq!(Scopes::ALL.to_string(), "admin,cancel,operate,read,submit");
        assert_eq!("operate".parse(), Ok(Scope::Operate));
        assert!("Operate".parse::<Scope>().is_err());
    }
}
