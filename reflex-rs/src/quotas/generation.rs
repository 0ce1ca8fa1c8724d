//! A version of the file of quotas, and whom it limits.

use std::sync::Arc;

use contracts::keys::LaneKeys;
use contracts::quotas::{self, Limits};

use super::limit::OwnerKind;
use super::owners::{Owner, Owners};
use crate::caller::{Caller, Credential};

/// A version of the file, and who was active since it was read.
pub(super) struct Generation {
    pub(super) file: quotas::Quotas,
    pub(super) tenants: Owners,
    pub(super) keys: Owners,
}

impl Generation {
    pub(super) fn new(file: quotas::Quotas, lane: &str) -> Self {
        let keys = LaneKeys::new(lane);
        Self {
            file,
            tenants: Owners::new(OwnerKind::Tenant, keys.clone()),
            keys: Owners::new(OwnerKind::Key, keys),
        }
    }

    /// The limits of the caller's tenant and of its key.
    pub(super) fn limits(&self, caller: &Caller) -> [Option<&Limits>; 2] {
        let file = &self.file;
        let tenant = file.tenants.get(&caller.tenant).or(file.default.as_ref());
        let key = match &caller.credential {
            Credential::Key(id) => file.keys.get(id.as_str()),
            // Tokens are short-lived; the limits of their tenant hold.
            Credential::None | Credential::Token(_) => None,
        };
        [tenant, key]
    }

    pub(super) fn owners(&self, caller: &Caller, now: u64) -> [Option<Arc<Owner>>; 2] {
        let [tenant, key] = self.limits(caller);
        let name = caller.credential.name().unwrap_or("");
        [
            tenant.map(|limits| self.tenants.get(caller.tenant.as_str(), limits, now)),
            key.map(|limits| self.keys.get(name, limits, now)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contracts::quotas;

    use super::{Generation, Owner};
    use crate::caller::{Caller, Credential, KeyId};
    use crate::quotas::fields::join;
    use crate::quotas::Limit;

    #[test]
    fn a_key_has_its_own_quota_next_to_its_tenant() {
        let text =
            "version: 1\ndefault: {requests: {per_s: 10}}\ntenants: {acme: {reads: {per_s: 1}}}\n\
                    keys: {abcdefghijkl: {requests: {per_s: 2}}}\n";
        let quotas = Generation::new(quotas::parse(text, 1000).unwrap(), "l0");
        let caller = |tenant: &str, key: Option<&[u8]>| Caller {
            credential: key
                .and_then(KeyId::parse)
                .map_or(Credential::None, Credential::Key),
            ..Caller::new(tenant.parse().unwrap())
        };
        let limits = |caller: &Caller| {
            let owners = quotas.owners(caller, 0);
            let buckets = owners.iter().flatten().flat_map(|owner| owner.buckets());
            let names = buckets.map(|bucket| bucket.key.clone());
            join(names)
        };
        let other = "{l0}:quota:tenant:other:requests";
        assert_eq!(limits(&caller("other", None)), other);
        assert_eq!(
            limits(&caller("acme", None)),
            "{l0}:quota:tenant:acme:reads"
        );
        assert_eq!(
            limits(&caller("other", Some(b"abcdefghijkl"))),
            format!("{other}, {{l0}}:quota:key:abcdefghijkl:requests")
        );
        assert_eq!(limits(&caller("other", Some(b"lkjihgfedcba"))), other);
        let once = quotas.owners(&caller("other", None), 0);
        let again = quotas.owners(&caller("other", None), 0);
        let bucket = |owners: &[Option<Arc<Owner>>; 2]| {
            Arc::clone(owners[0].as_ref().unwrap().requests.as_ref().unwrap())
        };
        assert!(Arc::ptr_eq(&bucket(&once), &bucket(&again)));
        assert_eq!(bucket(&once).limit, Limit::Requests);
    }
}
