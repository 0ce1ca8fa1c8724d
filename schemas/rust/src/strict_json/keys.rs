//! The keys of all open objects, so that a repeated key is found.

use std::borrow::Cow;
use std::collections::HashSet;

/// With more keys than this, an object gets a set: comparing each key with all others would take quadratic time.
const MAX_COMPARED: usize = 16;

#[derive(Default)]
pub(super) struct Keys<'a> {
    /// The keys of all open objects that have no set, the innermost object last.
    few: Vec<Cow<'a, str>>,
    objects: Vec<ObjectKeys<'a>>,
}

struct ObjectKeys<'a> {
    /// Where the object's keys begin in `few`.
    start: usize,
    many: Option<HashSet<Cow<'a, str>>>,
}

impl<'a> Keys<'a> {
    pub fn open_object(&mut self) {
        self.objects.push(ObjectKeys {
            start: self.few.len(),
            many: None,
        });
    }

    pub fn close_object(&mut self) {
        if let Some(object) = self.objects.pop() {
            self.few.truncate(object.start);
        }
    }

    /// Adds a key to the innermost object. Returns whether it is new there.
    pub fn insert(&mut self, key: Cow<'a, str>) -> bool {
        let Some(object) = self.objects.last_mut() else {
            return false;
        };
        if let Some(many) = &mut object.many {
            return many.insert(key);
        }
        let known = &self.few[object.start..];
        if known.contains(&key) {
            return false;
        }
        if known.len() < MAX_COMPARED {
            self.few.push(key);
        } else {
            let mut many: HashSet<_> = self.few.drain(object.start..).collect();
            many.insert(key);
            object.many = Some(many);
        }
        true
    }
}
