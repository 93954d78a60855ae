//! core: who is calling, by either kind of key, and what a change costs among many keys.

use super::{Case, samples};
use ::ingress::measured::Door;
use shared::config::{Config, PepperConfig, Secret, Tenant};
use shared::identity::key::{ENTROPY_LEN, Issued, issue};
use shared::identity::{Change, Digest, Directory, KeyRecord, Peppers, Scope};
use shared::quota::Quota;

const TENANT: &str = "search";
const LITERAL: &str = "sk-search-0123456789abcdef";
const KEYS: u64 = 100_000;

pub(super) fn cases() -> Vec<Case> {
    let identify = |name: &str, key: fn() -> String| {
        Case::new(name, move |meter| {
            let mut door = Door::new(directory(1), &key());
            meter.run(&mut door, |_| (), |door, ()| door.identify().is_ok());
        })
    };
    let change = Case::new("identity/change/100000-keys", |meter| {
        let (mut directory, record) = (directory(KEYS), record(KEYS));
        let with = |directory: &mut Directory, change| directory.with(change).expect("a sound key");
        meter.run(&mut directory, |_| Change::PutKey(record.clone()), with);
    });
    vec![
        identify("identity/literal-key", || LITERAL.to_owned()),
        identify("identity/issued-key", || issued(0).expose().to_owned()),
        identify("identity/unknown-key", || issued(1).expose().to_owned()),
        change,
    ]
}

/// One tenant with a literal key, and so many issued ones.
fn directory(keys: u64) -> Directory {
    let mut config = Config::sandbox();
    config.tenants.push(Tenant::unlimited(TENANT, secret(LITERAL)));
    config.peppers = Some(peppers());
    let mut directory = Directory::new(&config, [7; 32]);
    for n in 0..keys {
        directory.apply(Change::PutKey(record(n))).expect("a sound key");
    }
    directory
}

fn record(n: u64) -> KeyRecord {
    let key = issued(n);
    // One HMAC for each of many keys would take longer than what is measured.
    let digest = if n == 0 { key.digest(&Peppers::new(&peppers())) } else { Digest { pepper: 1, hash: [0; 32], until: None } };
    KeyRecord {
        id: key.id,
        name: "ci".to_owned(),
        tenant: TENANT.to_owned(),
        digests: vec![digest],
        scope: Scope::default(),
        quota: Quota::default(),
        expires_at: None,
        blocked: false,
        created_at: 1_767_225_600,
    }
}

/// The n-th key.
fn issued(n: u64) -> Issued {
    let mut entropy = [0; ENTROPY_LEN];
    entropy[..8].copy_from_slice(&samples::draw(n).to_be_bytes());
    issue(&entropy)
}

fn peppers() -> PepperConfig {
    PepperConfig { current: 1, values: [(1, secret("0123456789abcdef0123456789abcdef"))].into() }
}

fn secret(text: &str) -> Secret {
    Secret::literal(text).expect("visible ASCII")
}
