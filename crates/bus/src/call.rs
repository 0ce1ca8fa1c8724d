//! Script calls: KEYS and ARGV, sent by the script's hash.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ToRedisArgs};

use crate::script::Script;

/// One call of a script. The header of each file in `lua/` documents its KEYS and ARGV.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptCall {
    script: Script,
    keys: Vec<String>,
    args: Vec<Vec<u8>>,
}

impl ScriptCall {
    #[must_use]
    pub fn new(script: Script) -> Self {
        Self {
            script,
            keys: Vec::new(),
            args: Vec::new(),
        }
    }

    /// Append a key to KEYS.
    pub fn key(&mut self, name: impl Into<String>) -> &mut Self {
        self.keys.push(name.into());
        self
    }

    /// Append keys to KEYS.
    pub fn keys(&mut self, names: &[String]) -> &mut Self {
        self.keys.extend_from_slice(names);
        self
    }

    /// Append one value, or each value of a slice, to ARGV.
    pub fn arg(&mut self, value: impl ToRedisArgs) -> &mut Self {
        value.write_redis_args(&mut self.args);
        self
    }

    /// Append the index of a key in KEYS, from 1, to ARGV. The key itself is added where it is not there yet.
    pub fn key_index(&mut self, name: &str) -> &mut Self {
        let position = self.keys.iter().position(|key| key == name);
        let index = position.unwrap_or_else(|| {
            self.keys.push(name.to_owned());
            self.keys.len() - 1
        });
        self.arg(index + 1)
    }

    /// How many keys there are so far.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    #[must_use]
    pub fn script(&self) -> Script {
        self.script
    }

    /// The EVALSHA command.
    #[must_use]
    pub fn command(&self) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command
            .arg(self.script.hash())
            .arg(self.keys.len())
            .arg(&self.keys)
            .arg(&self.args);
        command
    }

    /// Run the script on a connection; load it where the server does not know it.
    pub async fn run<T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<T, RedisError> {
        let command = self.command();
        match command.query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::NoScriptError => {
                self.script.load(connection).await?;
                command.query_async(connection).await
            }
            answer => answer,
        }
    }

    /// ARGV as text, for tests.
    #[cfg(test)]
    pub(crate) fn text(&self) -> (&[String], String) {
        let args = self.args.iter().map(|arg| String::from_utf8_lossy(arg));
        (&self.keys, args.collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::{Script, ScriptCall};

    #[test]
    fn a_key_has_one_index_however_often_it_is_named() {
        let mut call = ScriptCall::new(Script::Complete);
        call.key("a").arg("x").key_index("b").key_index("a");
        call.arg(&["type", "t"]).arg(7);
        let (keys, args) = call.text();
        assert_eq!(keys, ["a", "b"]);
        assert_eq!(args, "x 2 1 type t 7");
        assert_eq!(call.key_count(), 2);
    }
}
