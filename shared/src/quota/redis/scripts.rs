//! edge: the scripts, each with what they share in front of it, and the hashes by which Redis knows them.

use std::sync::LazyLock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Turn,
    Renew,
    Seed,
    Look,
}

macro_rules! with_lib {
    ($($file:literal),*) => { [$(concat!(include_str!("lib.lua"), include_str!($file))),*] };
}

/// The texts of all scripts, in the order of [`Script`].
pub(super) const TEXTS: [&str; 4] = with_lib!["turn.lua", "renew.lua", "seed.lua", "look.lua"];

static HASHES: LazyLock<[String; 4]> = LazyLock::new(|| TEXTS.map(|text| redis::Script::new(text).get_hash().to_owned()));

impl Script {
    pub(super) fn hash(self) -> &'static str {
        &HASHES[self as usize]
    }
}
