//! edge: a new secret for a key, while the old one works on for as long as its users need to change over.

use super::ask::{self, invalid};
use super::audit::{Action, Author};
use super::keys::with_text;
use super::{Answered, Office, view};
use axum::Extension;
use axum::extract::{Path, Request, State};
use http::StatusCode;
use serde::Deserialize;
use shared::identity::{Digest, KeyId, Kind, key};
use shared::{clock, entropy};
use std::sync::Arc;

/// How long the old secret works on, unless it is said: a working day.
const OVERLAP_S: u64 = 24 * 3_600;

/// A rotation that takes longer is none.
const OVERLAP_S_MAX: u64 = 90 * 24 * 3_600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    overlap_s: Option<u64>,
}

pub(super) async fn rotate(
    State(office): State<Arc<Office>>,
    Extension(who): Extension<Author>,
    Path(id): Path<String>,
    request: Request,
) -> Answered {
    let (_, map) = ask::object(&office, request).await?;
    let overlap_s = ask::fields::<Wanted>(map)?.overlap_s.unwrap_or(OVERLAP_S);
    if overlap_s > OVERLAP_S_MAX {
        return Err(invalid(format!("at most {OVERLAP_S_MAX} seconds")).param("overlap_s").into());
    }
    let known = KeyId::parse(&id).ok_or_else(|| super::named::not_found(Kind::Key));
    let issued = key::reissue(known?, &entropy::key());
    let digest = issued.digest(office.peppers()?);
    let now = clock::unix_seconds();
    let (shown, revision) = office
        .change_key(&who, Action::Rotate, &id, |record| {
            rotated(&mut record.digests, digest.clone(), now, now + overlap_s);
            Ok(())
        })
        .await?;
    Ok(view::answer(StatusCode::OK, with_text(shown, &issued), Some(revision)))
}

/// Puts the new secret first. The others end at `until`, or sooner if they were to; those that have ended go.
fn rotated(digests: &mut Vec<Digest>, new: Digest, now: u64, until: u64) {
    for digest in digests.iter_mut() {
        digest.until = Some(digest.until.map_or(until, |end| end.min(until)));
    }
    digests.retain(|digest| digest.until.is_some_and(|end| end > now));
    digests.insert(0, new);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(pepper: u32, until: Option<u64>) -> Digest {
        Digest { pepper, hash: [0; 32], until }
    }

    #[test]
    fn the_old_secret_works_until_its_overlap_ends_and_older_ones_no_longer_than_before() {
        let mut digests = vec![digest(2, None), digest(1, Some(50)), digest(0, Some(9))];
        rotated(&mut digests, digest(3, None), 10, 70);
        assert_eq!(digests, [digest(3, None), digest(2, Some(70)), digest(1, Some(50))]);
        rotated(&mut digests, digest(4, None), 20, 20);
        assert_eq!(digests, [digest(4, None)], "no overlap: the old ones end at once");
    }
}
