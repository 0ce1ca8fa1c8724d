//! The rules a text must keep before any schema looks at it, the same as in Python's `octollm.contracts.strict_json`.
//!
//! Valid UTF-8, no duplicate keys, no NaN or Infinity, no number beyond a double, integers within 64 bits and none that
//! is `-0` (a float to some), a bounded nesting, no NUL and no lone surrogate, nothing after the value. Works with an
//! explicit stack, so that hostile nesting cannot exhaust the thread's. Builds no value; that is serde's work.
//!
//! `check` only checks. `canonicalize` also writes the value as serde would, in the same pass.

mod keys;
mod output;

use std::borrow::Cow;

use self::keys::Keys;
use self::output::{Canonical, Nothing, Output};
use crate::error::ContractError;

/// Arrays and objects that may lie within each other; the top level is 1.
pub const MAX_DEPTH: usize = 64;

/// Refuses `data` unless it is one strict JSON value.
pub fn check(data: &[u8]) -> Result<(), ContractError> {
    check_depth(data, MAX_DEPTH)
}

/// The same with another bound on the nesting.
pub fn check_depth(data: &[u8], max_depth: usize) -> Result<(), ContractError> {
    scan(data, max_depth, Nothing)
}

/// Like `check_depth`, and returns the value as `serde_json` writes it: without spaces, escapes only where they are needed,
/// the keys in their order. Calls `each_text` with every string and every key.
pub fn canonicalize(
    data: &[u8],
    max_depth: usize,
    each_text: impl FnMut(&str),
) -> Result<Vec<u8>, ContractError> {
    let mut written = Vec::with_capacity(data.len());
    let output = Canonical {
        written: &mut written,
        each_text,
    };
    scan(data, max_depth, output)?;
    Ok(written)
}

fn scan(data: &[u8], max_depth: usize, output: impl Output) -> Result<(), ContractError> {
    let text = std::str::from_utf8(data).map_err(|error| {
        ContractError::malformed(format!("not valid UTF-8 from byte {}", error.valid_up_to()))
    })?;
    let scanner = Scanner {
        text,
        bytes: text.as_bytes(),
        at: 0,
        keys: Keys::default(),
        output,
    };
    scanner.value(max_depth)
}

/// Which bytes end the part of a string that needs no further look: the quote, the backslash and control characters.
static SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        special[byte] = true;
        byte += 1;
    }
    special[b'"' as usize] = true;
    special[b'\\' as usize] = true;
    special
};

/// An open container.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Array,
    Object,
}

impl Open {
    fn end(self) -> u8 {
        match self {
            Self::Array => b']',
            Self::Object => b'}',
        }
    }
}

struct Scanner<'a, O> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    keys: Keys<'a>,
    output: O,
}

impl<'a, O: Output> Scanner<'a, O> {
    fn value(mut self, max_depth: usize) -> Result<(), ContractError> {
        let mut open: Vec<Open> = Vec::with_capacity(8);
        loop {
            self.space();
            // A value starts here.
            let opened = match self.peek() {
                Some(b'[') => Some(Open::Array),
                Some(b'{') => Some(Open::Object),
                _ => None,
            };
            if let Some(container) = opened {
                self.copy_byte();
                if open.len() >= max_depth {
                    return Err(self.fault(&format!("nested deeper than {max_depth} levels")));
                }
                self.space();
                if self.peek() == Some(container.end()) {
                    self.copy_byte();
                } else {
                    if container == Open::Object {
                        self.keys.open_object();
                        self.key()?;
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
                let Some(top) = open.last() else {
                    return if self.at == self.bytes.len() {
                        Ok(())
                    } else {
                        Err(self.fault("text after the value"))
                    };
                };
                match (self.peek(), top) {
                    (Some(b','), Open::Array) => {
                        self.copy_byte();
                        break;
                    }
                    (Some(b','), Open::Object) => {
                        self.copy_byte();
                        self.space();
                        self.key()?;
                        break;
                    }
                    (Some(b']'), Open::Array) => {
                        self.copy_byte();
                        open.pop();
                    }
                    (Some(b'}'), Open::Object) => {
                        self.copy_byte();
                        self.keys.close_object();
                        open.pop();
                    }
                    (None, _) => return Err(self.fault("the text ends too early")),
                    _ => return Err(self.fault("a comma or a closing bracket is missing")),
                }
            }
        }
    }

    /// Goes on behind a byte that the output gets as it is.
    fn copy_byte(&mut self) {
        self.output.raw(&self.bytes[self.at..=self.at]);
        self.at += 1;
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

    fn key(&mut self) -> Result<(), ContractError> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("an object key must be a string"));
        }
        let key = self.string()?;
        if !self.keys.insert(key) {
            return Err(self.fault("the same key twice in one object"));
        }
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.fault("a colon is missing after a key"));
        }
        self.copy_byte();
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), ContractError> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
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
            self.output.raw(word);
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
        let text = &self.text[start..self.at];
        if integer {
            if text == "-0" {
                return Err(self.fault("the integer -0; write 0"));
            }
            if text.parse::<i64>().is_err() && text.parse::<u64>().is_err() {
                return Err(self.fault("an integer beyond 64 bits"));
            }
            self.output.raw(text.as_bytes());
        } else {
            match text.parse::<f64>() {
                Ok(number) if number.is_finite() => self.output.float(number),
                _ => return Err(self.fault("a number beyond the range of a double")),
            }
        }
        Ok(())
    }

    /// Reads a string and returns it with the escapes resolved.
    fn string(&mut self) -> Result<Cow<'a, str>, ContractError> {
        self.at += 1;
        let start = self.at;
        self.plain();
        if self.peek() == Some(b'"') {
            let text = &self.text[start..self.at];
            self.at += 1;
            self.output.plain_string(text);
            return Ok(Cow::Borrowed(text));
        }
        let mut out = self.text[start..self.at].to_owned();
        loop {
            match self.peek() {
                None => return Err(self.fault("a string does not end")),
                Some(b'"') => {
                    self.at += 1;
                    self.output.string(&out);
                    return Ok(Cow::Owned(out));
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                Some(0) => return Err(self.fault("a NUL character")),
                Some(1..=0x1f) => {
                    return Err(self.fault("a control character in a string; escape it"))
                }
                Some(_) => {
                    let start = self.at;
                    self.plain();
                    out.push_str(&self.text[start..self.at]);
                }
            }
        }
    }

    /// Goes on to the next byte that needs a look.
    fn plain(&mut self) {
        let rest = &self.bytes[self.at..];
        let special = rest.iter().position(|byte| SPECIAL[usize::from(*byte)]);
        self.at += special.unwrap_or(rest.len());
    }

    fn escape(&mut self) -> Result<char, ContractError> {
        let plain = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.character();
            }
            _ => return Err(self.fault("an unknown escape in a string")),
        };
        self.at += 1;
        Ok(plain)
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
