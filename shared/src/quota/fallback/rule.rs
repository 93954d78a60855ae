//! core: since when Redis is away, what still goes on, and whose budgets it must be told anew when it is back.

use crate::clock::Time;
use foldhash::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Tenants noted by name. Past it every tenant's budgets are told anew: more work, the same result.
const STALE_MAX: usize = 65_536;

#[derive(Debug)]
pub(super) struct Rule {
    /// How long budgets go on by what this process knows. What all processes together may spend too much is what they spend
    /// in this time.
    grace: Duration,
    away_since: Option<Time>,
    stale: Stale,
}

#[derive(Debug)]
enum Stale {
    These(HashSet<Arc<str>>),
    AllBut(HashSet<Arc<str>>),
}

impl Default for Stale {
    fn default() -> Self {
        Self::These(HashSet::default())
    }
}

impl Rule {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, away_since: None, stale: Stale::default() }
    }

    pub(super) const fn is_away(&self) -> bool {
        self.away_since.is_some()
    }

    /// Returns whether this is news.
    pub(super) fn went(&mut self, now: Time) -> bool {
        let is_news = self.away_since.is_none();
        self.away_since.get_or_insert(now);
        is_news
    }

    pub(super) const fn came_back(&mut self) {
        self.away_since = None;
    }

    pub(super) fn keeps_budgets(&self, now: Time) -> bool {
        self.away_since.is_none_or(|since| now.since(since) < self.grace)
    }

    /// Something was done for a tenant that Redis may not know.
    pub(super) fn mark(&mut self, tenant: &Arc<str>) {
        match &mut self.stale {
            Stale::These(names) if names.len() >= STALE_MAX && !names.contains(tenant) => self.stale = Stale::AllBut(HashSet::default()),
            Stale::These(names) => {
                if !names.contains(tenant) {
                    names.insert(tenant.clone());
                }
            }
            Stale::AllBut(names) => {
                names.remove(tenant);
            }
        }
    }

    pub(super) fn is_stale(&self, tenant: &str) -> bool {
        match &self.stale {
            Stale::These(names) => names.contains(tenant),
            Stale::AllBut(names) => !names.contains(tenant),
        }
    }

    pub(super) fn has_stale(&self) -> bool {
        !matches!(&self.stale, Stale::These(names) if names.is_empty())
    }

    /// The tenant's budgets have been told anew.
    pub(super) fn freshen(&mut self, tenant: &Arc<str>) {
        match &mut self.stale {
            Stale::These(names) => {
                names.remove(tenant);
            }
            Stale::AllBut(names) if names.len() < STALE_MAX => {
                names.insert(tenant.clone());
            }
            Stale::AllBut(_) => self.stale = Stale::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    #[test]
    fn budgets_go_on_for_the_grace() {
        let mut rule = Rule::new(GRACE);
        let second = Duration::from_secs(1);
        assert!(rule.went(Time::ZERO) && !rule.went(Time::ZERO + second));
        assert!(rule.keeps_budgets(Time::ZERO + GRACE.saturating_sub(second)));
        assert!(!rule.keeps_budgets(Time::ZERO + GRACE));
        rule.came_back();
        assert!(rule.keeps_budgets(Time::ZERO + GRACE) && !rule.is_away());
    }

    #[test]
    fn a_flood_of_tenants_makes_all_of_them_stale() {
        let name = |n: usize| Arc::from(n.to_string());
        let mut rule = Rule::new(GRACE);
        (0..STALE_MAX).for_each(|n| rule.mark(&name(n)));
        assert!(rule.is_stale("0") && !rule.is_stale("somebody"));
        rule.mark(&name(STALE_MAX));
        assert!(rule.is_stale("0") && rule.is_stale("somebody"));
        rule.freshen(&name(0));
        assert!(!rule.is_stale("0") && rule.is_stale("1") && rule.has_stale());
        rule.mark(&name(0));
        assert!(rule.is_stale("0"));
    }
}
