//! From sampled stacks to events: which bytes each stands for, and what its functions are called.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use tracer_common::{AccountKey, Kind, Region, steps};

use crate::probe::StackSample;
use crate::recording::event::{Body, Event, Frame, Stack, StackCharge};
use crate::symbols::{Answer, Named, Place, Question, Symbols};

/// Stacks as the kernel gives them that are told apart, by process. Beyond that they are looked up anew.
const MAX_SEEN: usize = 16 << 10;
/// Stacks that wait for their names. More means that names are found more slowly than stacks come.
const MAX_WAITING: usize = 4 << 10;
/// Different stacks and functions in a recording. What comes beyond is charged to a stack without frames.
const MAX_STACKS: usize = 32 << 10;
const MAX_FRAMES: usize = 64 << 10;
/// At the end, names are waited for this long.
const LAST_NAMES: Duration = Duration::from_secs(10);

/// Number of the stack of what has none: too many, or not known in time.
const OTHER: u32 = 0;

/// A stack as the kernel gave it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Raw {
    tgid: u32,
    user: Vec<u64>,
    kernel: Vec<u64>,
}

/// Which stack a raw one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Asked for under this number.
    Asked(u64),
    /// The stack of this number in the recording.
    Stack(u32),
}

/// Samples of this long are added up, nanoseconds: names may be late, and what happened when must be told apart then.
const TOGETHER_NS: u64 = 1_000_000_000;
/// Kills and marks that are remembered.
const MAX_BOUNDS: usize = 64;

/// When and whose: a stretch of [`TOGETHER_NS`], the number of kills and marks before it, memcg, thread, kind and region.
type Account = (u64, usize, u64, u32, u64, Kind, Region);

/// A stack whose names are asked for, and its samples until they come.
struct Waiting {
    raw: Raw,
    accounts: BTreeMap<Account, Pending>,
}

/// Bytes that were sampled under one stack and not told yet.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    t: u64,
    bytes: u64,
    samples: u64,
}

/// Sampled stacks on their way to events.
pub struct Stacks {
    granularity: u64,
    symbols: Symbols,
    /// Steps that an account's samples stand for already.
    steps: HashMap<AccountKey, u64>,
    seen: HashMap<Raw, Known>,
    asked: u64,
    /// Samples of stacks that wait for their names, by the number they were asked for under.
    waiting: HashMap<u64, Waiting>,
    /// Samples of stacks that have their number.
    ready: BTreeMap<(Account, u32), Pending>,
    frames: HashMap<Place, u32>,
    stacks: HashMap<(Vec<u32>, Vec<u32>), u32>,
    /// Frames and stacks that are defined and not told yet.
    told: Vec<Body>,
    /// Samples that were charged to [`OTHER`].
    unknown: u64,
    /// Times of kills and marks.
    bounds: VecDeque<u64>,
}

impl std::fmt::Debug for Stacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stacks")
            .field("waiting", &self.waiting.len())
            .field("stacks", &self.stacks.len())
            .finish_non_exhaustive()
    }
}

impl Stacks {
    /// None yet; each account is sampled once in `granularity` bytes.
    #[must_use]
    pub fn new(granularity: u64, symbols: Symbols) -> Self {
        Self {
            granularity: granularity.max(1),
            symbols,
            steps: HashMap::new(),
            seen: HashMap::new(),
            asked: 0,
            waiting: HashMap::new(),
            ready: BTreeMap::new(),
            frames: HashMap::new(),
            stacks: HashMap::from([((Vec::new(), Vec::new()), OTHER)]),
            told: vec![Body::Stack(Stack::default())],
            unknown: 0,
            bounds: VecDeque::new(),
        }
    }

    /// What was charged up to this time is not added to what is charged later: there was a kill, or a mark.
    pub fn bound(&mut self, t: u64) {
        if self.bounds.len() >= MAX_BOUNDS {
            self.bounds.pop_front();
        }
        self.bounds.push_back(t);
    }

    /// Samples whose stack is not known: there were too many different ones, or names were not found in time.
    #[must_use]
    pub const fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Takes a sample. False when it stands for no bytes, since those before it do already.
    pub fn take(&mut self, sample: StackSample) -> bool {
        let key = sample.account;
        let (Some(kind), Some(region)) = (Kind::from_u8(key.kind), Region::from_u8(key.region)) else {
            return false;
        };
        let now = steps(&key, self.granularity, sample.sampled);
        let before = self
            .steps
            .entry(key)
            .or_insert_with(|| steps(&key, self.granularity, 0));
        let passed = now.saturating_sub(*before);
        if passed == 0 {
            return false;
        }
        *before = now;
        let side = self.bounds.iter().filter(|&&bound| sample.t > bound).count();
        let stretch = sample.t / TOGETHER_NS;
        let account = (stretch, side, key.memcg, key.tid, key.start_ns, kind, region);
        let bytes = passed.saturating_mul(self.granularity);
        let raw = Raw {
            tgid: sample.tgid,
            user: sample.user,
            kernel: sample.kernel,
        };
        let stack = match self.known(raw) {
            Some(Known::Stack(stack)) => stack,
            Some(Known::Asked(number)) if let Some(waiting) = self.waiting.get_mut(&number) => {
                waiting.accounts.entry(account).or_default().add(sample.t, bytes, 1);
                return true;
            }
            _ => {
                self.unknown += 1;
                OTHER
            }
        };
        self.ready.entry((account, stack)).or_default().add(sample.t, bytes, 1);
        true
    }

    /// Looks a stack up, or asks for its names; `None` where too many are asked for already.
    fn known(&mut self, raw: Raw) -> Option<Known> {
        if let Some(known) = self.seen.get(&raw) {
            return Some(*known);
        }
        if self.waiting.len() >= MAX_WAITING {
            return None;
        }
        if self.seen.len() >= MAX_SEEN {
            self.seen.retain(|_, known| matches!(known, Known::Asked(_)));
        }
        self.asked += 1;
        self.symbols.ask(Question::Stack {
            number: self.asked,
            pid: raw.tgid,
            user: raw.user.clone(),
            kernel: raw.kernel.clone(),
        });
        let known = Known::Asked(self.asked);
        self.seen.insert(raw.clone(), known);
        let accounts = BTreeMap::new();
        self.waiting.insert(self.asked, Waiting { raw, accounts });
        Some(known)
    }

    /// A process is gone, or started another program: its addresses mean something else from now on.
    pub fn forget_process(&mut self, pid: u32) {
        self.seen.retain(|raw, _| raw.tgid != pid);
        self.symbols.ask(Question::Forget { pid });
    }

    /// An account is gone for good.
    pub fn retire(&mut self, key: &AccountKey) {
        self.steps.remove(key);
    }

    /// What is new: definitions of frames and stacks, then the samples that refer to them.
    pub fn events(&mut self) -> Vec<Event> {
        loop {
            match self.symbols.answer() {
                Answer::Stack(named) => self.name(named),
                Answer::Waiting => break,
                Answer::Ended => {
                    self.give_up();
                    break;
                }
            }
        }
        self.tell()
    }

    /// The same at the end: names that are asked for are waited for, but not for long.
    pub fn last_events(&mut self) -> Vec<Event> {
        let deadline = Instant::now() + LAST_NAMES;
        while !self.waiting.is_empty() {
            match self.symbols.answer_by(deadline) {
                Answer::Stack(named) => self.name(named),
                Answer::Waiting | Answer::Ended => self.give_up(),
            }
        }
        self.tell()
    }

    /// What waits for names gets none.
    fn give_up(&mut self) {
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            for (account, pending) in waiting.accounts {
                self.unknown += pending.samples;
                self.ready.entry((account, OTHER)).or_default().merge(pending);
            }
        }
        self.seen.clear();
    }

    /// Takes a stack's names.
    fn name(&mut self, named: Named) {
        let Some(waiting) = self.waiting.remove(&named.number) else {
            return;
        };
        let stack = self.stack(named.user, named.kernel);
        if let Some(known) = self.seen.get_mut(&waiting.raw)
            && *known == Known::Asked(named.number)
        {
            *known = Known::Stack(stack.unwrap_or(OTHER));
        }
        for (account, pending) in waiting.accounts {
            if stack.is_none() {
                self.unknown += pending.samples;
            }
            self.ready
                .entry((account, stack.unwrap_or(OTHER)))
                .or_default()
                .merge(pending);
        }
    }

    /// Number of a stack, defined if it is new; `None` where there are too many.
    fn stack(&mut self, user: Vec<Place>, kernel: Vec<Place>) -> Option<u32> {
        let frames = |this: &mut Self, places: Vec<Place>| -> Option<Vec<u32>> {
            places.into_iter().map(|place| this.frame(place)).collect()
        };
        let key = (frames(self, user)?, frames(self, kernel)?);
        if let Some(number) = self.stacks.get(&key) {
            return Some(*number);
        }
        if self.stacks.len() >= MAX_STACKS {
            return None;
        }
        let number = u32::try_from(self.stacks.len()).ok()?;
        self.told.push(Body::Stack(Stack {
            stack: number,
            user: key.0.clone(),
            kernel: key.1.clone(),
        }));
        self.stacks.insert(key, number);
        Some(number)
    }

    /// Number of a frame, defined if it is new; `None` where there are too many.
    fn frame(&mut self, place: Place) -> Option<u32> {
        if let Some(number) = self.frames.get(&place) {
            return Some(*number);
        }
        if self.frames.len() >= MAX_FRAMES {
            return None;
        }
        let number = u32::try_from(self.frames.len()).ok()?;
        self.told.push(Body::Frame(Frame {
            frame: number,
            symbol: place.symbol.clone(),
            module: place.module.clone(),
            build_id: place.build_id.clone(),
            offset: place.offset,
        }));
        self.frames.insert(place, number);
        Some(number)
    }

    fn tell(&mut self) -> Vec<Event> {
        let ready = std::mem::take(&mut self.ready);
        let latest = ready.values().map(|pending| pending.t).max().unwrap_or(0);
        let told = std::mem::take(&mut self.told).into_iter();
        // Definitions without samples wait for those.
        if ready.is_empty() {
            self.told = told.collect();
            return Vec::new();
        }
        let definitions = told.map(|body| Event { t: latest, body });
        let samples = ready.into_iter().map(|((account, stack), pending)| {
            let (_, _, memcg, tid, start_ns, kind, region) = account;
            Event {
                t: pending.t,
                body: Body::StackCharge(StackCharge {
                    memcg,
                    tid,
                    start_ns,
                    kind,
                    region,
                    stack,
                    charged: pending.bytes,
                    samples: pending.samples,
                }),
            }
        });
        definitions.chain(samples).collect()
    }
}

impl Pending {
    fn add(&mut self, t: u64, bytes: u64, samples: u64) {
        self.t = self.t.max(t);
        self.bytes = self.bytes.saturating_add(bytes);
        self.samples += samples;
    }

    fn merge(&mut self, other: Self) {
        self.add(other.t, other.bytes, other.samples);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::node::Node;

    const STEP: u64 = 64 << 10;

    fn stacks() -> Stacks {
        let node = Node::new(Path::new("/")).expect("this machine has memory cgroups");
        Stacks::new(STEP, Symbols::start(node).expect("a thread"))
    }

    fn sample(tid: u32, sampled: u64, user: &[u64]) -> StackSample {
        StackSample {
            t: sampled,
            tgid: std::process::id(),
            account: AccountKey {
                memcg: 1,
                start_ns: 2,
                tid,
                kind: Kind::Anon as u8,
                region: Region::Overhead as u8,
                padding: 0,
            },
            sampled,
            comm: [0; 16],
            kernel: Vec::new(),
            user: user.to_vec(),
        }
    }

    fn charged(events: &[Event]) -> Vec<(u32, u32, u64)> {
        events
            .iter()
            .filter_map(|event| match &event.body {
                Body::StackCharge(charge) => Some((charge.tid, charge.stack, charge.charged)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn samples_stand_for_the_steps_since_the_last_one_that_came() {
        let mut stacks = stacks();
        assert!(stacks.take(sample(7, STEP, &[])));
        assert!(!stacks.take(sample(7, STEP, &[])), "a repetition");
        assert!(!stacks.take(sample(7, 9, &[])), "a late one");
        // Two did not fit into the ring buffer.
        assert!(stacks.take(sample(7, 4 * STEP, &[])));
        assert!(stacks.take(sample(8, 2 * STEP, &[])));
        let events = stacks.last_events();
        assert_eq!(charged(&events), [(7, 0, 4 * STEP), (8, 0, 2 * STEP)]);
        assert_eq!(stacks.unknown(), 0, "no stack is a stack like any other");
    }

    #[test]
    fn a_stack_is_defined_once_and_before_what_refers_to_it() {
        let mut stacks = stacks();
        let here = charged as fn(&[Event]) -> Vec<(u32, u32, u64)> as usize as u64;
        stacks.take(sample(7, STEP, &[here]));
        let first = stacks.last_events();
        assert!(matches!(
            first.first().map(|event| &event.body),
            Some(Body::Stack(Stack { stack: 0, .. }))
        ));
        let frame = first.iter().find_map(|event| match &event.body {
            Body::Frame(frame) => Some(frame),
            _ => None,
        });
        let symbol = frame.and_then(|frame| frame.symbol.as_deref()).unwrap_or_default();
        assert!(symbol.ends_with("::charged"), "{frame:?}");
        assert_eq!(charged(&first), [(7, 1, STEP)]);
        // The same function from another instruction, and another thread.
        stacks.take(sample(7, 2 * STEP, &[here + 1]));
        stacks.take(sample(8, STEP, &[here]));
        let second = stacks.last_events();
        assert_eq!(second.len(), 2, "nothing is defined twice: {second:?}");
        assert_eq!(charged(&second), [(7, 1, STEP), (8, 1, STEP)]);
    }

    #[test]
    fn what_was_charged_before_a_kill_is_told_apart_however_late_names_are() {
        let mut stacks = stacks();
        let kill = 5 * STEP + 7;
        let mut after = sample(7, 6 * STEP, &[]);
        after.t = kill + 1;
        stacks.take(sample(7, 4 * STEP, &[]));
        stacks.take(sample(7, 5 * STEP, &[]));
        stacks.bound(kill);
        stacks.take(after);
        let mut later = sample(7, 9 * STEP, &[]);
        later.t = kill + TOGETHER_NS;
        stacks.take(later);
        let events = stacks.last_events();
        let times: Vec<u64> = events.iter().map(|event| event.t).skip(1).collect();
        assert_eq!(times, [5 * STEP, kill + 1, kill + TOGETHER_NS], "{events:?}");
        assert_eq!(charged(&events), [(7, 0, 5 * STEP), (7, 0, STEP), (7, 0, 3 * STEP)]);
    }

    #[test]
    fn too_many_stacks_at_a_time_are_counted_and_keep_their_bytes() {
        let mut stacks = stacks();
        for index in 0..MAX_WAITING as u64 + 3 {
            // None of these is code.
            stacks.take(sample(7, (index + 1) * STEP, &[index, 1]));
        }
        let unknown = stacks.unknown();
        let bytes: u64 = charged(&stacks.last_events()).iter().map(|(.., bytes)| bytes).sum();
        assert_eq!(unknown, 3);
        assert_eq!(bytes, (MAX_WAITING as u64 + 3) * STEP);
    }
}
