//! What is written into a group: device rules of both versions, processor shares, limit texts.

use std::ops::RangeInclusive;

/// Device nodes that work in a container, all of them character devices: major number, and minor
/// number or all. null, zero, full, random, urandom; tty, ptmx; pseudo-terminals. They can be read
/// and written; nothing can be made with mknod.
const COMMON: [(u32, Option<u32>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

/// And fuse.
const FUSE: (u32, Option<u32>) = (10, Some(229));

/// Which device nodes work in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// Those that every container has.
    Common,
    /// And that of user-space file systems, /dev/fuse.
    WithFuse,
}

impl Devices {
    fn numbers(self) -> impl Iterator<Item = (u32, Option<u32>)> {
        COMMON.into_iter().chain((self == Devices::WithFuse).then_some(FUSE))
    }
}

/// Lines for `devices.allow` of v1, after `a` went into `devices.deny`.
pub fn device_lines(devices: Devices) -> impl Iterator<Item = String> {
    devices.numbers().map(|(major, minor)| match minor {
        Some(minor) => format!("c {major}:{minor} rwm"),
        None => format!("c {major}:* rwm"),
    })
}

/// The same rules as a program for `BPF_PROG_TYPE_CGROUP_DEVICE`: it returns 1 to allow, 0 for
/// `EPERM`. Its argument (r1) is `struct bpf_cgroup_dev_ctx` of linux/bpf.h:
///
/// | bytes | field       | value                                                          |
/// |-------|-------------|----------------------------------------------------------------|
/// | 0..4  | access_type | low half: 1 block, 2 character; high half: 1 mknod, 2 read, 4 write |
/// | 4..8  | major       |                                                                |
/// | 8..12 | minor       |                                                                |
pub fn device_program(devices: Devices) -> Vec<u64> {
    const DENY: [u64; 2] = [set(R0, 0), EXIT];
    const ALLOW: [u64; 2] = [set(R0, 1), EXIT];
    let mut program = vec![load(R2, R1, 0), load(R3, R1, 4), load(R4, R1, 8)];
    // Only the type counts: all three kinds of access are allowed where one is.
    program.extend([and(R2, 0xffff), skip_if_equal(R2, 2, 2)]);
    program.extend(DENY);
    for (major, minor) in devices.numbers() {
        match minor {
            Some(minor) => {
                program.extend([skip_unless(R3, major, 3), skip_unless(R4, minor, 2)]);
            }
            None => program.push(skip_unless(R3, major, 2)),
        }
        program.extend(ALLOW);
    }
    program.extend(DENY);
    program
}

/// Registers; r1 holds the argument, r0 the result.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;

/// Opcodes of linux/bpf.h: size or operation, class, and source of the operand.
const LDX_MEM_W: u8 = 0x61;
const ALU64_AND_K: u8 = 0x57;
const ALU64_MOV_K: u8 = 0xb7;
const JMP_JEQ_K: u8 = 0x15;
const JMP_JNE_K: u8 = 0x55;
const JMP_EXIT: u8 = 0x95;
const EXIT: u64 = instruction(JMP_EXIT, 0, 0, 0, 0);

/// `struct bpf_insn`: opcode, destination and source register (a nibble each, their order follows
/// the machine's), 16-bit offset, 32-bit constant.
const fn instruction(opcode: u8, to: u8, from: u8, offset: i16, constant: i32) -> u64 {
    let registers = if cfg!(target_endian = "big") { to << 4 | from } else { from << 4 | to };
    let (offset, constant) = (offset.to_ne_bytes(), constant.to_ne_bytes());
    u64::from_ne_bytes([
        opcode,
        registers,
        offset[0],
        offset[1],
        constant[0],
        constant[1],
        constant[2],
        constant[3],
    ])
}

const fn load(to: u8, from: u8, offset: i16) -> u64 {
    instruction(LDX_MEM_W, to, from, offset, 0)
}

const fn and(register: u8, mask: u32) -> u64 {
    instruction(ALU64_AND_K, register, 0, 0, mask as i32)
}

const fn set(register: u8, value: i32) -> u64 {
    instruction(ALU64_MOV_K, register, 0, 0, value)
}

const fn skip_if_equal(register: u8, value: u32, count: i16) -> u64 {
    instruction(JMP_JEQ_K, register, 0, count, value as i32)
}

const fn skip_unless(register: u8, value: u32, count: i16) -> u64 {
    instruction(JMP_JNE_K, register, 0, count, value as i32)
}

/// What the kernel takes for `cpu.shares`, and what it gives a group that nobody asked for.
const SHARES: RangeInclusive<u64> = 2..=1 << 18;
const SHARES_USUAL: u64 = 1024;

/// `cpu.shares` as asked for, within the kernel's range; else from a Diego weight of 1 to 100, of
/// which none is the full one.
pub fn cpu_shares(shares: Option<u64>, weight: Option<u32>) -> u64 {
    let of_weight = || SHARES_USUAL * u64::from(weight.unwrap_or(100).min(100)) / 100;
    shares.unwrap_or_else(of_weight).clamp(*SHARES.start(), *SHARES.end())
}

/// `cpu.weight` (1 to 10000, 100 by default) for `cpu.shares` (2 to 262144, 1024 by default):
/// the curve through these three points that runc and crun use since 2025.
pub fn cpu_weight(shares: u64) -> u64 {
    let log = (shares.clamp(*SHARES.start(), *SHARES.end()) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// The text of a limit in the files that call "none" `max`.
pub fn or_max(limit: Option<u64>) -> String {
    limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string())
}

/// Such a text read back: `Some(None)` is no limit, `None` is no such text.
pub fn parse_max(text: &str) -> Option<Option<u64>> {
    match text.trim() {
        "max" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

/// The number after `key` in a file of `key number` lines.
pub fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would, for one access; panics on what we never emit.
    fn run(program: &[u64], access: u32, major: u32, minor: u32) -> u64 {
        let (mut registers, mut at) = ([0u64; 11], 0usize);
        for _ in 0..program.len() {
            let bytes = program[at].to_ne_bytes();
            let to = usize::from(bytes[1] & 0x0f);
            let offset = i16::from_ne_bytes([bytes[2], bytes[3]]);
            let constant = i32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            let constant = i64::from(constant) as u64;
            at += 1;
            match bytes[0] {
                LDX_MEM_W => {
                    registers[to] = [access, major, minor][offset as usize / 4].into();
                }
                ALU64_AND_K => registers[to] &= constant,
                ALU64_MOV_K => registers[to] = constant,
                JMP_JEQ_K if registers[to] == constant => at += offset as usize,
                JMP_JNE_K if registers[to] != constant => at += offset as usize,
                JMP_JEQ_K | JMP_JNE_K => {}
                JMP_EXIT => return registers[0],
                other => panic!("opcode {other:#x}"),
            }
        }
        panic!("no exit");
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_program_allows_its_devices_and_nothing_else() {
        for (devices, fuse) in [(Devices::Common, 0), (Devices::WithFuse, 1)] {
            let fuse_alone = [(2, 10, 229, fuse), (1, 10, 229, 0), (2, 10, 228, 0), (2, 1, 3, 1)];
            for (kind, major, minor, allowed) in fuse_alone {
                let got = run(&device_program(devices), kind | 2 << 16, major, minor);
                assert_eq!(got, allowed, "{devices:?} {kind} {major}:{minor}");
            }
        }
        let program = device_program(Devices::Common);
        let (read, write, mknod) = (2 << 16, 4 << 16, 1 << 16);
        for (kind, mode, major, minor, allowed) in [
            (2, read, 1, 3, 1),
            (2, read | write, 1, 3, 1),
            (2, write, 1, 9, 1),
            (2, 0, 1, 3, 1),
            (2, read, 5, 0, 1),
            (2, read, 5, 2, 1),
            (2, read | write, 136, 7, 1),
            (2, mknod, 1, 3, 1),
            (2, mknod, 1, 11, 0),
            (1, read, 1, 3, 0),
            (1, mknod, 8, 0, 0),
            (2, read, 1, 1, 0),
            (2, read, 1, 11, 0),
            (2, read, 5, 1, 0),
            (2, read, 4, 0, 0),
            (2, read, 10, 200, 0),
            (2, read, 3, 3, 0),
        ] {
            let got = run(&program, kind | mode, major, minor);
            assert_eq!(got, allowed, "kind {kind} mode {mode:#x} {major}:{minor}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn an_instruction_has_the_kernels_layout() {
        // Bytes as `llvm-objdump` prints `r3 = *(u32 *)(r1 + 4)` and `if r3 != 136 goto +2`.
        assert_eq!(load(R3, R1, 4).to_ne_bytes(), [0x61, 0x13, 4, 0, 0, 0, 0, 0]);
        assert_eq!(skip_unless(R3, 136, 2).to_ne_bytes(), [0x55, 0x03, 2, 0, 0x88, 0, 0, 0]);
    }

    #[test]
    fn v1_lines_name_the_same_devices() {
        let fuse: Vec<String> = device_lines(Devices::WithFuse).collect();
        assert_eq!(fuse.last().map(String::as_str), Some("c 10:229 rwm"));
        let lines: Vec<String> = device_lines(Devices::Common).collect();
        assert_eq!(fuse[..lines.len()], lines);
        assert_eq!(lines.first().map(String::as_str), Some("c 1:3 rwm"));
        assert_eq!(lines.last().map(String::as_str), Some("c 136:* rwm"));
        assert!(lines.iter().all(|line| line.ends_with(" rwm")));
    }

    #[test]
    fn processor_shares_follow_the_weight() {
        for (weight, shares) in
            [(Some(100), 1024), (None, 1024), (Some(50), 512), (Some(1), 10), (Some(0), 2)]
        {
            assert_eq!(cpu_shares(None, weight), shares, "{weight:?}");
        }
        let all: Vec<u64> = (1..=100).map(|w| cpu_weight(cpu_shares(None, Some(w)))).collect();
        assert!(all.is_sorted(), "a larger weight never gets less: {all:?}");
    }

    #[test]
    fn shares_win_over_the_weight_and_stay_on_the_scale() {
        for (asked, shares) in
            [(0, 2), (1, 2), (2, 2), (512, 512), (262_144, 262_144), (u64::MAX, 262_144)]
        {
            assert_eq!(cpu_shares(Some(asked), Some(50)), shares, "{asked}");
        }
    }

    #[test]
    fn v2_weights_go_through_both_ends_and_the_usual() {
        for (shares, weight) in [
            (0, 1),
            (2, 1),
            (10, 4),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        let all: Vec<u64> = SHARES.step_by(7).map(cpu_weight).collect();
        assert!(all.is_sorted(), "more shares never get less");
    }

    #[test]
    fn no_limit_is_read_back_as_such() {
        assert_eq!(parse_max("max\n"), Some(None));
        assert_eq!(parse_max("0\n"), Some(Some(0)));
        assert_eq!(parse_max(&or_max(Some(u64::MAX))), Some(Some(u64::MAX)));
        assert_eq!(parse_max(""), None);
        assert_eq!(parse_max("-1"), None);
    }

    #[test]
    fn a_field_is_found_by_its_whole_key() {
        let text = "cache 5\ntotal_cache 7\ntotal_cachex 9\nbad x\n";
        assert_eq!(field(text, "total_cache"), Some(7));
        assert_eq!(field(text, "cache"), Some(5));
        assert_eq!(field(text, "bad"), None);
        assert_eq!(field(text, "total"), None);
    }
}
