//! Roles, scopes, rotation, and the order of things, on a directory of one file and some changes.

use super::*;
use crate::config::parse;
use crate::domain::{Lane, Operation};
use crate::identity::key::{ENTROPY_LEN, Issued, issue, reissue};
use crate::identity::{Admin, Digest, KeyRecord, Role};

const NOW: u64 = 1_000;

const FILE: &str = "
roles:
  - { name: free, models: [ 'small-*' ], endpoints: [ chat ], lanes: [ interactive ], limits: { requests_per_minute: 60, concurrency: 4 } }
  - { name: admin, admin: write }
tenants:
  - name: search
    keys: [ sk-search-1, { key: sk-search-ci, name: ci, models: [ 'small-*' ], endpoints: [ embeddings ] }, { key: sk-search-old, expires_at: 1000 } ]
  - { name: trial, role: free, limits: { concurrency: 2 }, keys: [ sk-trial-1, { key: sk-trial-2, models: [ '*' ], lanes: [ bulk ] } ] }
  - { name: orphan, role: gone, keys: [ sk-orphan-1 ] }
";

fn peppers() -> Peppers {
    let secret = |version: u32| crate::config::Secret::literal(&format!("pepper-{version}-of-32-or-more-characters")).unwrap();
    Peppers::new(&config::PepperConfig { current: 2, values: [1, 2].map(|v| (v, secret(v))).into() })
}

fn directory() -> Directory {
    let mut directory = Directory::new(&parse(FILE, "f").unwrap(), [7; 32]);
    directory.peppers = Some(Arc::new(peppers())); // Those of a file are references to secrets elsewhere.
    directory
}

fn issued(seed: u8) -> Issued {
    issue(&[seed; ENTROPY_LEN])
}

fn record(key: &Issued, tenant: &str) -> KeyRecord {
    let json = serde_json::json!({ "id": key.id, "tenant": tenant, "digests": [key.digest(&peppers())], "created_at": 1 });
    serde_json::from_value(json).unwrap()
}

fn code(directory: &Directory, credential: &str) -> Code {
    directory.authenticate(credential.as_bytes(), NOW).unwrap_err().code
}

fn caller(directory: &Directory, credential: &str) -> Caller {
    directory.authenticate(credential.as_bytes(), NOW).unwrap()
}

#[test]
fn a_literal_key_leads_to_its_tenant_and_never_shows() {
    let caller = caller(&directory(), "sk-search-1");
    assert_eq!((&*caller.tenant.name, &*caller.key.as_ref().unwrap().id), ("search", "search/1"));
    assert!(caller.may_use("any") && caller.may_call(Operation::Embeddings, Lane::Bulk).is_ok());
    assert_eq!(caller.admin(), Admin::None);
    assert!(!format!("{caller:?}").contains("sk-search"));
    assert_eq!(code(&directory(), "sk-search-2"), Code::InvalidApiKey);
    assert_eq!(code(&directory(), "sk-search-old"), Code::KeyExpired, "at its very second");
    assert_eq!(code(&directory(), "sk-orphan-1"), Code::PermissionDenied, "its role is not there");
}

#[test]
fn a_key_narrows_its_role_and_never_widens_it() {
    let directory = directory();
    let role = caller(&directory, "sk-trial-1");
    assert!(role.may_use("small-1") && !role.may_use("large-1"));
    assert_eq!(role.may_call(Operation::Embeddings, Lane::Interactive).unwrap_err().code, Code::PermissionDenied);
    assert_eq!(role.may_call(Operation::Chat, Lane::Bulk).unwrap_err().code, Code::PermissionDenied);
    let wider = caller(&directory, "sk-trial-2");
    assert!(!wider.may_use("large-1"), "`*` of a key is all that its role has");
    for lane in Lane::ALL {
        assert!(wider.may_call(Operation::Chat, lane).is_err(), "role and key have no lane in common");
    }
    let narrower = caller(&directory, "sk-search-ci");
    assert!(narrower.may_use("small-1") && !narrower.may_use("large-1"));
    assert!(narrower.may_call(Operation::Embeddings, Lane::Bulk).is_ok() && narrower.may_call(Operation::Chat, Lane::Bulk).is_err());
}

#[test]
fn a_tenants_limits_come_before_its_roles() {
    let quota = &caller(&directory(), "sk-trial-1").tenant.quota;
    assert_eq!((quota.requests_per_minute, quota.concurrency), (Some(60), Some(2)));
}

#[test]
fn an_issued_key_comes_is_blocked_expires_and_goes_while_old_snapshots_stay() {
    let (before, key) = (directory(), issued(1));
    assert_eq!(code(&before, key.expose()), Code::InvalidApiKey);
    let there = before.with(Change::PutKey(record(&key, "search"))).unwrap();
    assert_eq!(*caller(&there, key.expose()).key.unwrap().id, *key.id.as_str());
    let blocked = there.with(Change::PutKey(KeyRecord { blocked: true, ..record(&key, "search") })).unwrap();
    assert_eq!(code(&blocked, key.expose()), Code::KeyBlocked);
    let expired = there.with(Change::PutKey(KeyRecord { expires_at: Some(NOW), ..record(&key, "search") })).unwrap();
    assert_eq!(code(&expired, key.expose()), Code::KeyExpired);
    let gone = blocked.with(Change::DropKey(key.id)).unwrap();
    assert_eq!(code(&gone, key.expose()), Code::InvalidApiKey);
    assert!(there.authenticate(key.expose().as_bytes(), NOW).is_ok(), "a snapshot never changes");
}

#[test]
fn what_is_wrong_with_a_blocked_key_is_told_to_nobody_but_its_holder() {
    let (key, other) = (issued(1), reissue(issued(1).id, &[2; ENTROPY_LEN]));
    let directory = directory().with(Change::PutKey(KeyRecord { blocked: true, ..record(&key, "search") })).unwrap();
    assert_eq!(code(&directory, other.expose()), Code::InvalidApiKey);
}

#[test]
fn a_rotated_key_works_through_its_overlap_under_another_pepper_too() {
    let (old, new) = (issued(1), reissue(issued(1).id, &[2; ENTROPY_LEN]));
    let mut old_digest = old.digest(&peppers());
    old_digest.until = Some(NOW + 10);
    let digests = vec![new.digest(&peppers()), old_digest.clone()];
    let directory = directory().with(Change::PutKey(KeyRecord { digests, ..record(&new, "search") })).unwrap();
    for key in [&old, &new] {
        assert!(directory.authenticate(key.expose().as_bytes(), NOW).is_ok());
    }
    assert_eq!(directory.authenticate(old.expose().as_bytes(), NOW + 10).unwrap_err().code, Code::KeyExpired);
    assert!(directory.authenticate(new.expose().as_bytes(), NOW + 10).is_ok());
    let foreign = KeyRecord { digests: vec![Digest { pepper: 9, ..old_digest }], ..record(&old, "search") };
    let directory = directory.with(Change::PutKey(foreign)).unwrap();
    assert_eq!(code(&directory, old.expose()), Code::InvalidApiKey, "its pepper is not here");
}

#[test]
fn objects_find_each_other_in_whatever_order_they_come() {
    let key = issued(1);
    let mut directory = directory();
    directory.apply(Change::PutKey(record(&key, "late"))).unwrap();
    assert_eq!(code(&directory, key.expose()), Code::InvalidApiKey);
    let tenant = TenantRecord { name: "late".into(), role: Some("later".into()), weight: 3, quota: Quota::default() };
    directory.apply(Change::PutTenant(tenant)).unwrap();
    assert_eq!(code(&directory, key.expose()), Code::PermissionDenied);
    let role = |rpm| Role { name: "later".into(), quota: Quota { requests_per_minute: Some(rpm), ..Quota::default() }, ..Role::default() };
    for rpm in [5, 6] {
        directory.apply(Change::PutRole(role(rpm))).unwrap();
        assert_eq!(caller(&directory, key.expose()).tenant.quota.requests_per_minute, Some(rpm));
    }
    directory.apply(Change::DropRole("later".into())).unwrap();
    assert_eq!(code(&directory, key.expose()), Code::PermissionDenied);
    directory.apply(Change::DropTenant("late".into())).unwrap();
    assert_eq!(code(&directory, key.expose()), Code::InvalidApiKey);
}

#[test]
fn the_files_objects_win_over_the_stores() {
    let mut directory = directory();
    let tenant = TenantRecord { name: "trial".into(), role: Some("admin".into()), weight: 9, quota: Quota::default() };
    let changes = [
        Change::PutTenant(tenant),
        Change::DropTenant("trial".into()),
        Change::PutRole(Role { name: "free".into(), ..Role::default() }),
        Change::DropRole(DEFAULT_ROLE.into()),
    ];
    for change in changes {
        assert!(matches!(directory.apply(change), Err(Ignored::OfTheFile { .. })));
    }
    assert_eq!(caller(&directory, "sk-trial-1").role.name, "free");
    let unsound = TenantRecord { name: "a b".into(), role: None, weight: 1, quota: Quota::default() };
    assert!(matches!(directory.apply(Change::PutTenant(unsound)), Err(Ignored::Unsound { .. })));
}

#[test]
fn a_token_speaks_for_a_tenant_in_a_role_of_its_own() {
    let directory = directory();
    let scope = Arc::new(Scope { models: serde_json::from_str(r#"["small-1"]"#).unwrap(), ..Scope::default() });
    let caller = directory.vouched("trial", Some("admin"), &scope).unwrap();
    assert_eq!((&*caller.role.name, &*caller.tenant.name, caller.tenant.quota.concurrency), ("admin", "trial", Some(2)));
    assert!(caller.may_use("small-1") && !caller.may_use("small-2"));
    assert_eq!(directory.vouched("trial", None, &scope).unwrap().role.name, "free");
    for (tenant, role) in [("nobody", None), ("trial", Some("nothing")), ("orphan", None)] {
        assert_eq!(directory.vouched(tenant, role, &scope).unwrap_err().code, Code::PermissionDenied);
    }
}

#[test]
fn who_is_narrowed_in_anything_administers_nothing() {
    let mut directory = directory();
    let admin = TenantRecord { name: "ops".into(), role: Some("admin".into()), weight: 1, quota: Quota::default() };
    directory.apply(Change::PutTenant(admin)).unwrap();
    let scopes = [("{}", Admin::Write), (r#"{"models":["small-1"]}"#, Admin::None), (r#"{"lanes":["bulk"]}"#, Admin::None)];
    for (scope, rights) in scopes {
        let (key, scope) = (issued(1), serde_json::from_str::<Scope>(scope).unwrap());
        directory.apply(Change::PutKey(KeyRecord { scope: scope.clone(), ..record(&key, "ops") })).unwrap();
        assert_eq!(caller(&directory, key.expose()).admin(), rights, "a key with {scope:?}");
        let scope = Arc::new(scope);
        assert_eq!(directory.vouched("trial", Some("admin"), &scope).unwrap().admin(), rights, "a token with {scope:?}");
    }
}

/// Who left work with a key of the tenant `search`.
fn acting(directory: &Directory, key: &str) -> Result<Caller, Failure> {
    directory.acting("search", DEFAULT_ROLE, Some(key), None, NOW)
}

#[test]
fn work_is_done_for_a_key_as_long_as_it_is_in_force() {
    let key = issued(1);
    let there = directory().with(Change::PutKey(record(&key, "search"))).unwrap();
    assert_eq!(*acting(&there, key.id.as_str()).unwrap().key.unwrap().id, *key.id.as_str());
    let refused = [
        (Change::PutKey(KeyRecord { blocked: true, ..record(&key, "search") }), Code::KeyBlocked),
        (Change::PutKey(KeyRecord { expires_at: Some(NOW), ..record(&key, "search") }), Code::KeyExpired),
        (Change::DropKey(key.id), Code::PermissionDenied),
    ];
    for (change, code) in refused {
        assert_eq!(acting(&there.with(change).unwrap(), key.id.as_str()).unwrap_err().code, code);
    }
}

#[test]
fn work_is_done_for_a_key_of_the_file_after_a_restart() {
    let restarted = Directory::new(&parse(FILE, "f").unwrap(), [8; 32]);
    for id in ["search/1", "search/ci"] {
        assert_eq!(*acting(&restarted, id).unwrap().key.unwrap().id, *id);
    }
    assert_eq!(acting(&restarted, "search/3").unwrap_err().code, Code::KeyExpired);
    assert_eq!(acting(&restarted, "search/4").unwrap_err().code, Code::PermissionDenied, "it is not in the file any more");
}

#[test]
fn work_is_done_in_the_tenants_present_role_or_in_that_of_the_token() {
    let (directory, scope) = (directory(), Arc::new(Scope::default()));
    let acting = |tenant, key| directory.acting(tenant, "admin", key, Some(Arc::clone(&scope)), NOW);
    assert_eq!(acting("trial", Some("trial/1")).unwrap().role.name, "free");
    assert_eq!(acting("trial", None).unwrap().role.name, "admin");
    assert_eq!(acting("orphan", Some("orphan/1")).unwrap_err().code, Code::PermissionDenied);
}
