//! Credentials: from the headers of a request to its caller.
//!
//! A request's way: `presented` (which credential the headers contain) → `key` (the parts of an API key) → `table` (the valid
//! keys, in memory) → a `Caller` or a `Refusal`. `refresh` keeps the table equal to what Python publishes in Redis. Tokens are
//! verified by `token` with the keys of their issuer: `jwks` reads them, `key_set` says which fits. No request asks a store. Must not log or quote a credential; only the id of a key may be named.

mod authenticator;
mod jwks;
mod key;
mod key_set;
mod presented;
mod record;
mod refresh;
mod refusal;
mod table;
mod token;

pub use authenticator::{authorize, Authenticator, Clock};
pub use key::ApiKey;
pub use presented::is_presented;
pub use record::KeyRecord;
pub use refresh::Refresh;
pub use refusal::Refusal;
pub use table::{KeyTable, Keys};
pub use token::Tokens;
