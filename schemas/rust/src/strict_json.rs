//! The rules a text must keep before any schema looks at it, the same as in Python's `octollm.contracts.strict_json`.
//!
//! Valid UTF-8, no duplicate keys, no NaN or Infinity, no number beyond a double, integers within 64 bits and none that
//! is `-0` (a float to some), a bounded nesting, no NUL and no lone surrogate, nothing after the value. Works with an
//! explicit stack, so that hostile nesting cannot exhaust the thread's. Builds no value; that is serde's work.

use std::collections::HashSet;

use crate::error::ContractError;

/// Arrays and objects that may lie within each other; the top level is 1.
pub const MAX_DEPTH: usize = 64;

/// Refuses `data` unless it is one strict JSON value.
pub fn check(data: &[u8]) -> Result<(), ContractError> {
    check_depth(data, MAX_DEPTH)
}

/// The same with another bound on the nesting.
pub fn check_depth(data: &[u8], max_depth: usize) -> Result<(), ContractError> {
    let text = std::str::from_utf8(data).map_err(|error| {
        ContractError::malformed(format!("not valid UTF-8 from byte {}", error.valid_up_to()))
    })?;
    Scanner {
        bytes: text.as_bytes(),
        at: 0,
    }
    .value(max_depth)
}

/// An open container; an object keeps the set of its keys.
enum Open {
    Array,
    Object(HashSet<Vec<u8>>),
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn value(mut self, max_depth: usize) -> Result<(), ContractError> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            self.space();
            // A value starts here.
            let opened = match self.peek() {
                Some(b'[') => Some(Open::Array),
                Some(b'{') => Some(Open::Object(HashSet::new())),
                _ => None,
            };
            if let Some(mut container) = opened {
                self.at += 1;
                if open.len() >= max_depth {
                    return Err(self.fault(&format!("nested deeper than {max_depth} levels")));
                }
                self.space();
                let end = if matches!(container, Open::Array) {
                    b']'
                } else {
                    b'}'
                };
                if self.peek() == Some(end) {
                    self.at += 1;
                } else {
                    if let Open::Object(keys) = &mut container {
                        self.key(keys)?;
                    }
                    open.push(container);
                    continue;
                }
            } else {
                self.scalar()?;
            }
            // A value has ended: close what ends with it, or go on to the next one.
            loop {
                self.space();
                let Some(top) = open.last_mut() else {
                    return if self.at == self.bytes.len() {
                        Ok(())
                    } else {
                        Err(self.fault("text after the value"))
                    };
                };
                match (self.peek(), top) {
                    (Some(b','), Open::Array) => {
                        self.at += 1;
                        break;
                    }
                    (Some(b','), Open::Object(keys)) => {
                        self.at += 1;
                        self.space();
                        self.key(keys)?;
                        break;
                    }
                    (Some(b']'), Open::Array) | (Some(b'}'), Open::Object(_)) => {
                        self.at += 1;
                        open.pop();
                    }
                    (None, _) => return Err(self.fault("the text ends too early")),
                    _ => return Err(self.fault("a comma or a closing bracket is missing")),
                }
            }
        }
    }

    fn fault(&self, what: &str) -> ContractError {
        ContractError::malformed(format!("not strict JSON at byte {}: {what}", self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn key(&mut self, keys: &mut HashSet<Vec<u8>>) -> Result<(), ContractError> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("an object key must be a string"));
        }
        let key = self.string()?;
        if !keys.insert(key) {
            return Err(self.fault("the same key twice in one object"));
        }
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.fault("a colon is missing after a key"));
        }
        self.at += 1;
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), ContractError> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.fault("no JSON value starts like this")),
            None => Err(self.fault("the text ends too early")),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), ContractError> {
        if self.bytes[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.fault("no JSON value starts like this"))
    }

    fn digits(&mut self) -> Result<(), ContractError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.fault("a digit is missing in a number"));
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), ContractError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.fault("a number with a leading zero"));
            }
        } else {
            self.digits()?;
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = String::from_utf8_lossy(&self.bytes[start..self.at]);
        if integer {
            if text == "-0" {
                return Err(self.fault("the integer -0; write 0"));
            }
            if text.parse::<i64>().is_err() && text.parse::<u64>().is_err() {
                return Err(self.fault("an integer beyond 64 bits"));
            }
        } else if !text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(self.fault("a number beyond the range of a double"));
        }
        Ok(())
    }

    /// Reads a string and gives its bytes with the escapes resolved, for the comparison of keys.
    fn string(&mut self) -> Result<Vec<u8>, ContractError> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let Some(byte) = self.peek() else {
                return Err(self.fault("a string does not end"));
            };
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(out);
                }
                b'\\' => {
                    self.at += 1;
                    self.escape(&mut out)?;
                }
                0 => return Err(self.fault("a NUL character")),
                1..=0x1f => return Err(self.fault("a control character in a string; escape it")),
                _ => {
                    self.at += 1;
                    out.push(byte);
                }
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), ContractError> {
        let plain = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.at += 1;
                let character = self.character()?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.fault("an unknown escape in a string")),
        };
        self.at += 1;
        out.push(plain);
        Ok(())
    }

    /// The character of a `\u` escape or of a pair of them; `at` stands behind the first `u`.
    fn character(&mut self) -> Result<char, ContractError> {
        let first = self.hex()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            if !self.bytes[self.at..].starts_with(b"\\u") {
                return Err(self.fault("a lone surrogate"));
            }
            self.at += 2;
            let second = self.hex()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(self.fault("a lone surrogate"));
            }
            0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        match char::from_u32(code) {
            Some('\0') => Err(self.fault("a NUL character")),
            Some(character) => Ok(character),
            None => Err(self.fault("a lone surrogate")),
        }
    }

    fn hex(&mut self) -> Result<u32, ContractError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.fault("a \\u escape needs four hexadecimal digits"));
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}
