//! From rules for system calls to one short program of classic BPF.
//!
//! The numbers fall into runs that have the same rule; the program finds the run by halving:
//!
//! ```text
//! load the architecture; another one: kill
//! load the number
//! number >= first of the upper half ? upper half : lower half     (and so on)
//! answer of the run, or a look at one argument
//! ```
//!
//! Not one comparison after the other: when a filter is installed the kernel walks through it for
//! every number there is, to remember those that are allowed whatever their arguments, and checks
//! and translates its whole length. That is a part of what a container costs.

use crate::sys::seccomp::{Instruction, Program};
use std::collections::BTreeMap;

/// What the kernel does about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It lets it pass.
    Allow,
    /// It refuses it with this error number.
    Errno(u16),
    /// It kills the process.
    Kill,
}

/// The rule for one call. Of an argument the lower 32 bits are looked at: the kernel uses no more
/// in all calls that we look into, and more would let a set upper bit slip through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The same answer whatever the arguments.
    Always(Answer),
    /// Allowed when this argument is one of these; else [`Rules::refused`].
    OneOf(u8, &'static [u32]),
    /// Refused when this argument is one of these.
    NoneOf(u8, &'static [u32]),
    /// Refused when this argument has one of these bits.
    Without(u8, u32),
}

/// The rules of all calls.
pub(super) struct Rules {
    /// By number.
    pub(super) of: BTreeMap<u32, Rule>,
    /// The answer to the calls in between, and to arguments that do not pass.
    pub(super) refused: Answer,
    /// The highest number that `refused` is for.
    pub(super) youngest: u32,
    /// The answer to higher numbers without a rule.
    pub(super) unknown: Answer,
}

/// `BPF_LD | BPF_W | BPF_ABS`: load a word of `struct seccomp_data`; linux/filter.h, linux/seccomp.h.
pub(super) const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_JA`, and with `BPF_K`: `BPF_JEQ`, `BPF_JGE`, `BPF_JSET`.
pub(super) const JUMP: u16 = 0x05;
pub(super) const IF_EQUAL: u16 = 0x15;
pub(super) const IF_AT_LEAST: u16 = 0x35;
pub(super) const IF_ANY_BIT: u16 = 0x45;
/// `BPF_RET | BPF_K`.
pub(super) const RETURN: u16 = 0x06;

/// Where the number and the architecture are in `struct seccomp_data`, in bytes.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;

/// Where the lower 32 bits of an argument are.
pub(super) const fn argument(number: u8) -> u32 {
    16 + 8 * number as u32
}

// An argument's lower half comes first.
const _: () = assert!(cfg!(target_endian = "little"));

/// `AUDIT_ARCH_*` of this program, linux/audit.h: the ELF machine, 64 bits, little-endian.
pub(super) const HERE: u32 = 0xc000_0000
    | if cfg!(target_arch = "x86_64") {
        62
    } else if cfg!(target_arch = "aarch64") {
        183
    } else {
        243 // riscv64
    };

impl Answer {
    /// `SECCOMP_RET_*`.
    pub(super) fn word(self) -> u32 {
        match self {
            Answer::Allow => 0x7fff_0000,
            Answer::Errno(number) => 0x0005_0000 | u32::from(number),
            Answer::Kill => 0x8000_0000,
        }
    }
}

/// The program that follows the rules.
pub(super) fn compile(rules: &Rules) -> Program {
    let mut program = vec![
        step(LOAD, 0, 0, ARCHITECTURE),
        step(IF_EQUAL, 1, 0, HERE),
        step(RETURN, 0, 0, Answer::Kill.word()),
        step(LOAD, 0, 0, NUMBER),
    ];
    program.extend(tree(&runs(rules), rules.refused));
    program
}

/// One instruction.
fn step(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// The first number of each run and its rule. The first run begins at 0, each ends where the next
/// one begins.
fn runs(rules: &Rules) -> Vec<(u32, Rule)> {
    let mut runs: Vec<(u32, Rule)> = Vec::new();
    let mut add = |number, rule| {
        if runs.last().is_none_or(|(_, last)| *last != rule) {
            runs.push((number, rule));
        }
    };
    let between = |number| match number <= rules.youngest {
        true => Rule::Always(rules.refused),
        false => Rule::Always(rules.unknown),
    };
    let last = rules.of.keys().copied().max().unwrap_or(0).max(rules.youngest);
    for number in 0..=last {
        add(number, rules.of.get(&number).copied().unwrap_or_else(|| between(number)));
    }
    add(last + 1, Rule::Always(rules.unknown));
    runs
}

/// Finds the run of the loaded number and follows its rule.
fn tree(runs: &[(u32, Rule)], refused: Answer) -> Program {
    let [(_, rule)] = runs else {
        let (lower, upper) = runs.split_at(runs.len() / 2);
        let first = upper[0].0;
        let (lower, upper) = (tree(lower, refused), tree(upper, refused));
        // A conditional jump reaches 255 instructions far.
        let mut program = match u8::try_from(lower.len()) {
            Ok(length) => vec![step(IF_AT_LEAST, length, 0, first)],
            Err(_) => vec![step(IF_AT_LEAST, 0, 1, first), step(JUMP, 0, 0, lower.len() as u32)],
        };
        program.extend(lower);
        program.extend(upper);
        return program;
    };
    leaf(*rule, refused)
}

/// Follows one rule.
fn leaf(rule: Rule, refused: Answer) -> Program {
    let answer = |answer: Answer| step(RETURN, 0, 0, answer.word());
    // The value when the argument is one of `values`, and that when it is not.
    let among = |of, values: &[u32], hit, miss| {
        let mut program = vec![step(LOAD, 0, 0, argument(of))];
        for (at, value) in values.iter().enumerate() {
            // Over the other comparisons and the miss.
            let over = (values.len() - at) as u8;
            program.push(step(IF_EQUAL, over, 0, *value));
        }
        program.extend([answer(miss), answer(hit)]);
        program
    };
    match rule {
        Rule::Always(always) => vec![answer(always)],
        Rule::OneOf(of, values) => among(of, values, Answer::Allow, refused),
        Rule::NoneOf(of, values) => among(of, values, refused, Answer::Allow),
        Rule::Without(of, bits) => vec![
            step(LOAD, 0, 0, argument(of)),
            step(IF_ANY_BIT, 1, 0, bits),
            answer(Answer::Allow),
            answer(refused),
        ],
    }
}
