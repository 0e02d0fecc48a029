//! What a command takes: time, processor time with all that it starts, and memory.

use crate::bench::rest;
use crate::host;
use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    pub wall_us: u64,
    /// User and system, with every process that was waited for.
    pub cpu_us: u64,
    /// The most that one of its processes had in memory at a time.
    pub rss_kib: u64,
}

/// Runs a command below a process of its own, so that what it used is told apart from what
/// others did. Its output is dropped; an error says what it said.
pub fn measure(command: &Command) -> Result<Cost> {
    let mut meter = Command::new(std::env::current_exe()?);
    meter.args(["bench", "pull", "--meter"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        meter.env(name, value.unwrap_or_default());
    }
    let text = host::capture(&mut meter)?;
    serde_json::from_str(&text).with_context(|| format!("the meter printed no figures: {text}"))
}

/// The other end of [`measure`].
pub fn inside(words: &[&str]) -> Result<()> {
    let (program, args) = words.split_first().context("nothing is to be measured")?;
    let begun = Instant::now();
    host::run(Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()))?;
    let wall_us = super::super::micros(begun);
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: nix::sys::time::TimeVal| {
        u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or_default()
    };
    let cpu_us = micros(used.user_time()) + micros(used.system_time());
    let rss_kib = u64::try_from(used.max_rss()).unwrap_or_default();
    println!("{}", serde_json::to_string(&Cost { wall_us, cpu_us, rss_kib })?);
    Ok(())
}

/// A process that is there before and after what is measured.
pub struct Standing {
    id: u32,
    ticks: u64,
    /// In memory before.
    pub rest_kib: u64,
}

impl Standing {
    /// From here on.
    pub fn begin(id: u32) -> Result<Standing> {
        let file = format!("/proc/{id}/clear_refs");
        // 5: the peak begins anew. proc(5).
        std::fs::write(&file, "5").with_context(|| format!("cannot write {file}"))?;
        Ok(Standing { id, ticks: rest::ticks(id)?, rest_kib: status(id, "VmRSS:")? })
    }

    /// What it used since: processor time, and the most memory above that before.
    pub fn end(&self) -> Result<(u64, u64)> {
        let ticks = rest::ticks(self.id)? - self.ticks;
        let peak = status(self.id, "VmHWM:")?;
        // A hundredth of a second each, on every Linux.
        Ok((ticks * 10_000, peak.saturating_sub(self.rest_kib)))
    }
}

fn status(id: u32, name: &str) -> Result<u64> {
    rest::field(&format!("/proc/{id}/status"), name)
}

/// Bytes of a file.
pub fn bytes(file: &Path) -> Result<u64> {
    let meta =
        std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(meta.len())
}
