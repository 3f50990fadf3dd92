//! Code paths: the stacks that overhead was charged from.

use std::collections::{BTreeMap, HashMap};

use super::culprit::Entity;
use crate::recording::event::{Frame, Stack};

/// Frames and stacks of a recording; a tracer makes no more (`collect/stacks.rs`).
const MAX_FRAMES: usize = 64 << 10;
const MAX_STACKS: usize = 32 << 10;
/// Frames of one stack; a tracer makes no more than 128.
const MAX_DEPTH: usize = 256;
/// Longest name, bytes; a tracer makes none longer than 512.
const MAX_NAME: usize = 1024;
/// Roles and stacks told apart in all pods.
const MAX_CHARGED: usize = 128 << 10;

/// A stack's frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path<'a> {
    /// In the process, innermost first.
    pub user: Vec<&'a Frame>,
    /// In the kernel, innermost first.
    pub kernel: Vec<&'a Frame>,
}

/// Overhead that a role was charged from one stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathCharge<'a> {
    /// Who.
    pub entity: &'a Entity,
    /// From where.
    pub path: Path<'a>,
    /// Bytes.
    pub bytes: u64,
}

/// Stacks by number, and what was charged from them.
#[derive(Debug, Default)]
pub struct CodePaths {
    frames: HashMap<u32, Frame>,
    stacks: HashMap<u32, Stack>,
    charged: BTreeMap<(u32, Entity, u32), u64>,
}

impl CodePaths {
    pub(super) fn frame(&mut self, frame: &Frame) {
        if self.frames.len() < MAX_FRAMES {
            let mut frame = frame.clone();
            cut(&mut frame.module);
            frame.symbol.iter_mut().for_each(cut);
            frame.build_id.iter_mut().for_each(cut);
            self.frames.insert(frame.frame, frame);
        }
    }

    pub(super) fn stack(&mut self, stack: &Stack) {
        if self.stacks.len() < MAX_STACKS {
            let mut stack = stack.clone();
            stack.user.truncate(MAX_DEPTH);
            stack.kernel.truncate(MAX_DEPTH);
            self.stacks.insert(stack.stack, stack);
        }
    }

    pub(super) fn charge(&mut self, pod: u32, entity: Entity, stack: u32, bytes: u64) {
        let full = self.charged.len() >= MAX_CHARGED;
        let mut key = (pod, entity, stack);
        if full && !self.charged.contains_key(&key) {
            key = (pod, Entity::others(), 0);
        }
        let charged = self.charged.entry(key).or_default();
        *charged = charged.saturating_add(bytes);
    }

    pub(super) fn forget(&mut self, pod: u32) {
        self.charged.retain(|(of, ..), _| *of != pod);
    }

    /// The frames of a stack; none for one that was never defined.
    #[must_use]
    pub fn path(&self, stack: u32) -> Path<'_> {
        let frames = |numbers: &[u32]| numbers.iter().filter_map(|number| self.frames.get(number)).collect();
        self.stacks.get(&stack).map_or_else(Path::default, |stack| Path {
            user: frames(&stack.user),
            kernel: frames(&stack.kernel),
        })
    }

    /// What was charged to a pod within its window, the largest first.
    #[must_use]
    pub fn of_pod(&self, pod: u32) -> Vec<PathCharge<'_>> {
        let of_pod = self.charged.iter().filter(|((of, ..), _)| *of == pod);
        let mut charges: Vec<PathCharge<'_>> = of_pod
            .map(|((_, entity, stack), bytes)| PathCharge {
                entity,
                path: self.path(*stack),
                bytes: *bytes,
            })
            .collect();
        charges.sort_by_key(|charge| std::cmp::Reverse(charge.bytes));
        charges
    }
}

impl Frame {
    /// What stands for it where there is room for one name: the function, else file and offset, and the build id to find
    /// it by. Comes from the pod: escape it before it is printed.
    #[must_use]
    pub fn label(&self) -> String {
        if let Some(symbol) = &self.symbol {
            return symbol.clone();
        }
        let file = self.module.rsplit('/').next().unwrap_or_default();
        let offset = self.offset.map_or_else(String::new, |offset| format!("+{offset:#x}"));
        let build_id = self
            .build_id
            .as_deref()
            .map(|id| id.chars().take(12).collect::<String>());
        let build_id = build_id.map_or_else(String::new, |id| format!(" [{id}]"));
        format!("{file}{offset}{build_id}")
    }
}

fn cut(text: &mut String) {
    if text.len() > MAX_NAME {
        let end = (0..=MAX_NAME).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u32, symbol: Option<&str>) -> Frame {
        Frame {
            frame: number,
            symbol: symbol.map(str::to_owned),
            module: "/usr/lib/libvirt.so.0".to_owned(),
            build_id: Some("0123456789abcdef0123".to_owned()),
            offset: symbol.is_none().then_some(0x1234),
        }
    }

    #[test]
    fn a_place_without_a_name_can_be_found_later() {
        assert_eq!(frame(1, Some("leak")).label(), "leak");
        assert_eq!(frame(1, None).label(), "libvirt.so.0+0x1234 [0123456789ab]");
        assert_eq!(Frame::default().label(), "");
    }

    #[test]
    fn what_was_charged_from_a_stack_is_found_with_its_frames() {
        let mut paths = CodePaths::default();
        paths.frame(&frame(1, Some("leak")));
        paths.frame(&frame(2, Some("main")));
        let stack = Stack {
            stack: 5,
            user: vec![1, 2, 99],
            kernel: Vec::new(),
        };
        paths.stack(&stack);
        paths.charge(0, Entity::others(), 5, 100);
        paths.charge(0, Entity::unknown(), 7, 300);
        paths.charge(1, Entity::others(), 5, 50);
        paths.charge(0, Entity::others(), 5, 250);
        let charges = paths.of_pod(0);
        assert_eq!(
            charges.iter().map(|charge| charge.bytes).collect::<Vec<_>>(),
            [350, 300]
        );
        let names: Vec<String> = charges[0].path.user.iter().map(|frame| frame.label()).collect();
        assert_eq!(names, ["leak", "main"]);
        assert_eq!(charges[1].path, Path::default(), "never defined");
        paths.forget(0);
        assert!(paths.of_pod(0).is_empty());
        assert_eq!(paths.of_pod(1).len(), 1);
    }

    #[test]
    fn long_names_are_cut() {
        let mut paths = CodePaths::default();
        paths.frame(&frame(1, Some(&"ä".repeat(4000))));
        let stack = Stack {
            stack: 1,
            user: vec![1; 1000],
            kernel: Vec::new(),
        };
        paths.stack(&stack);
        let path = paths.path(1);
        assert_eq!(path.user.len(), MAX_DEPTH);
        assert_eq!(path.user[0].label().len(), MAX_NAME);
    }
}
