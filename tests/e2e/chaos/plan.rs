//! core: what goes wrong when: a function of the seed alone, so that a run can be planned again.

use loadtest::draw;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Before the first injection: the load has begun.
const LEAD: Duration = Duration::from_secs(4);
/// Longer than any lane's `ack_wait`, which is 15 s at most.
const STOPPED: Duration = Duration::from_secs(20);
/// Longer than a lease and than a lost worker's 5 s, shorter than a deadline.
const CUT_OFF: Duration = Duration::from_secs(7);
/// Faults at once: with more, every road may be closed, and nothing is tried but patience.
const AT_ONCE_MAX: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Ingress(usize),
    Scheduler(usize),
    Worker(usize),
    Backend(usize),
    Nats(usize),
    Redis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL; started again after a second or two.
    Kill(Who),
    /// SIGSTOP for longer than an `ack_wait`, then SIGCONT.
    Stop(Who),
    /// A partition from all nats-servers; of a backend, from the workers.
    CutOff(Who),
    /// What it sends arrives, and no answer comes back.
    HalfOpen(Who),
    Slow(Who),
    /// Its connections are reset.
    Reset(Who),
    KillLeader,
    RollNats,
    RestartNats,
    /// The disk of a nats-server is full.
    DiskFull,
    FlushRedis,
    /// 5 % of the backends' calls fail, in every way there is.
    Faulty,
    /// Prompts that fail whatever runs them, among others that share their calls.
    Poison,
    SlowLoris,
    Flood,
    CancelStorm,
}

/// Of a group only one is broken at a time: two of three nats-servers are a majority, one of two ingresses takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Ingress,
    Scheduler,
    Worker,
    Backend,
    Nats,
    Redis,
    Callers,
}

/// A fault and when it begins and is over, from the beginning of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) fault: Fault,
    pub(super) at: Duration,
    pub(super) until: Duration,
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Every class once, the kills of each role, and few stops.
    Short,
    /// Round after round with everything in it.
    Long(Duration),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ingress(index) => write!(f, "ingress-{index}"),
            Self::Scheduler(index) => write!(f, "scheduler-{index}"),
            Self::Worker(index) => write!(f, "worker-{index}"),
            Self::Backend(index) => write!(f, "backend-{index}"),
            Self::Nats(index) => write!(f, "nats-{index}"),
            Self::Redis => f.write_str("redis"),
        }
    }
}

impl Who {
    const fn group(self) -> Group {
        match self {
            Self::Ingress(_) => Group::Ingress,
            Self::Scheduler(_) => Group::Scheduler,
            Self::Worker(_) => Group::Worker,
            Self::Backend(_) => Group::Backend,
            Self::Nats(_) => Group::Nats,
            Self::Redis => Group::Redis,
        }
    }

    fn role(self) -> &'static str {
        match self.group() {
            Group::Ingress => "ingress",
            Group::Scheduler => "scheduler",
            Group::Worker => "worker",
            Group::Backend => "backend",
            Group::Nats => "nats-server",
            Group::Redis => "redis",
            Group::Callers => unreachable!("callers are no process"),
        }
    }
}

impl Fault {
    /// Under which the report counts it.
    pub(super) fn class(self) -> String {
        let of = |what: &str, who: Who| format!("{what} {}", who.role());
        match self {
            Self::Kill(who) => of("kill", who),
            Self::Stop(who) => of("stop", who),
            Self::CutOff(who) => of("partition", who),
            Self::HalfOpen(who) => of("half-open", who),
            Self::Slow(who) => of("slow", who),
            Self::Reset(who) => of("reset", who),
            Self::KillLeader => "kill nats leader".into(),
            Self::RollNats => "rolling restart of nats".into(),
            Self::RestartNats => "total restart of nats".into(),
            Self::DiskFull => "disk full at a nats-server".into(),
            Self::FlushRedis => "flush redis".into(),
            Self::Faulty => "backend faults at 5 %".into(),
            Self::Poison => "poison items".into(),
            Self::SlowLoris => "slow loris".into(),
            Self::Flood => "flood".into(),
            Self::CancelStorm => "cancel storm".into(),
        }
    }

    /// The process it is done to, if it is one.
    pub(super) const fn target(self) -> Option<Who> {
        match self {
            Self::Kill(who) | Self::Stop(who) | Self::CutOff(who) | Self::HalfOpen(who) | Self::Slow(who) | Self::Reset(who) => Some(who),
            _ => None,
        }
    }

    fn group(self) -> Group {
        match self {
            Self::KillLeader | Self::RollNats | Self::RestartNats | Self::DiskFull => Group::Nats,
            Self::FlushRedis => Group::Redis,
            Self::Faulty => Group::Backend,
            Self::Poison | Self::SlowLoris | Self::Flood | Self::CancelStorm => Group::Callers,
            Self::Kill(_) | Self::Stop(_) | Self::CutOff(_) | Self::HalfOpen(_) | Self::Slow(_) | Self::Reset(_) => {
                self.target().expect("it is done to a process").group()
            }
        }
    }

    fn lasts(self, draw: f64) -> Duration {
        match self {
            Self::Kill(_) | Self::KillLeader => Duration::from_millis(500).mul_f64(1.0 + 3.0 * draw),
            Self::Stop(_) => STOPPED,
            Self::CutOff(_) | Self::HalfOpen(_) | Self::DiskFull => CUT_OFF,
            Self::Slow(_) | Self::Faulty | Self::SlowLoris => Duration::from_secs(6),
            Self::Reset(_) | Self::FlushRedis | Self::RestartNats | Self::RollNats => Duration::from_millis(500),
            Self::Poison | Self::Flood | Self::CancelStorm => Duration::from_secs(2),
        }
    }
}

/// The faults of a run, by their beginnings.
pub(super) fn plan(seed: u64, form: Form) -> Vec<Planned> {
    let mut dice = Dice { seed, drawn: 0 };
    match form {
        Form::Short => timeline(&mut dice, short, Duration::from_millis(3_800), Duration::ZERO),
        Form::Long(length) => timeline(&mut dice, long, Duration::from_millis(6_500), length),
    }
}

/// Deals faults from a shuffled deck, one every `gap`, the first that may go beside those under way; and a new deck as long as
/// `length` is not reached.
fn timeline(dice: &mut Dice, deck: impl Fn(&mut Dice) -> Vec<Fault>, gap: Duration, length: Duration) -> Vec<Planned> {
    let (mut all, mut left, mut at): (Vec<Planned>, VecDeque<Fault>, _) = (Vec::new(), VecDeque::new(), LEAD);
    let deal = |dice: &mut Dice| {
        let dealt = deck(dice);
        dice.shuffled(dealt)
    };
    left.extend(deal(dice));
    while !left.is_empty() {
        let under_way: Vec<Group> = all.iter().filter(|one| one.until + gap > at).map(|one| one.fault.group()).collect();
        let fits = left.iter().position(|fault| !under_way.contains(&fault.group()));
        if let Some(fault) = fits.filter(|_| under_way.len() < AT_ONCE_MAX).and_then(|place| left.remove(place)) {
            all.push(Planned { fault, at, until: at + fault.lasts(dice.unit()) });
        }
        at += gap;
        if left.is_empty() && at < length {
            left = deal(dice);
        }
    }
    all
}

fn short(dice: &mut Dice) -> Vec<Fault> {
    use Fault::*;
    use Who::*;
    let (ingress, scheduler, worker) = (dice.below(2), dice.below(2), dice.below(3));
    vec![
        Kill(Ingress(ingress)),
        Kill(Scheduler(scheduler)),
        Kill(Scheduler(1 - scheduler)),
        Kill(Worker(worker)),
        Kill(Worker((worker + 1) % 3)),
        Kill(Backend(dice.below(4))),
        Kill(Nats(dice.below(3))),
        Kill(Redis),
        KillLeader,
        Stop(Worker((worker + 2) % 3)),
        Stop(Scheduler(dice.below(2))),
        CutOff(Ingress(1 - ingress)),
        CutOff(Worker(dice.below(3))),
        CutOff(Backend(dice.below(4))),
        HalfOpen(Scheduler(dice.below(2))),
        Slow(Worker(dice.below(3))),
        Slow(Redis),
        Reset(Ingress(ingress)),
        Reset(Backend(dice.below(4))),
        RollNats,
        RestartNats,
        DiskFull,
        FlushRedis,
        Faulty,
        Poison,
        SlowLoris,
        Flood,
        CancelStorm,
    ]
}

fn long(dice: &mut Dice) -> Vec<Fault> {
    use Fault::*;
    use Who::*;
    let mut deck = short(dice);
    deck.extend([
        Stop(Ingress(dice.below(2))),
        Stop(Nats(dice.below(3))),
        Stop(Backend(dice.below(4))),
        Stop(Redis),
        CutOff(Scheduler(dice.below(2))),
        HalfOpen(Worker(dice.below(3))),
        HalfOpen(Backend(dice.below(4))),
        Slow(Backend(dice.below(4))),
        Slow(Scheduler(dice.below(2))),
        Reset(Worker(dice.below(3))),
        Reset(Scheduler(dice.below(2))),
    ]);
    deck
}

/// Draws in a row.
struct Dice {
    seed: u64,
    drawn: u64,
}

impl Dice {
    fn unit(&mut self) -> f64 {
        self.drawn += 1;
        draw::unit(self.seed, self.drawn)
    }

    fn below(&mut self, end: usize) -> usize {
        self.drawn += 1;
        usize::try_from(draw::bits(self.seed, self.drawn) % end as u64).expect("below a small number")
    }

    fn shuffled(&mut self, mut deck: Vec<Fault>) -> VecDeque<Fault> {
        for place in (1..deck.len()).rev() {
            deck.swap(place, self.below(place + 1));
        }
        deck.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_plans_alike_and_another_otherwise() {
        assert_eq!(plan(7, Form::Short), plan(7, Form::Short));
        assert_ne!(plan(7, Form::Short), plan(8, Form::Short));
    }

    #[test]
    fn the_short_form_has_24_injections_in_less_than_three_minutes_and_breaks_one_of_a_group_at_a_time() {
        for seed in 0..200 {
            let plan = plan(seed, Form::Short);
            assert!(plan.len() >= 24);
            assert!(plan.iter().all(|one| one.until < Duration::from_secs(160)), "seed {seed}: {plan:?}");
            for (index, one) in plan.iter().enumerate() {
                let overlap = |other: &&Planned| other.at < one.until && one.at < other.until;
                let beside: Vec<_> = plan[..index].iter().filter(overlap).collect();
                assert!(beside.len() < AT_ONCE_MAX && beside.iter().all(|other| other.fault.group() != one.fault.group()), "seed {seed}");
            }
        }
    }

    #[test]
    fn an_hour_has_400_injections() {
        let plan = plan(1, Form::Long(Duration::from_secs(3_600)));
        assert!(plan.len() >= 400, "{}", plan.len());
    }
}
