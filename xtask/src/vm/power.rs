//! The shipped unit on a box whose power fails: what was acknowledged is there after the boot, and apps
//! come back alone, in their declared order, from what is there: nothing leads out of the guest.
//!
//! The cut is the kernel's own reset, without a sync: what had not reached the disk is lost.

use super::guest::Guest;
use super::{parcel, run};
use crate::{host, rootfs};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Duration;

/// The unit says that it is ready when its store is made.
const UNIT_STARTS: Duration = Duration::from_secs(300);
/// From the start of the unit until all apps run: they are staged first.
const APPS_RUN: Duration = Duration::from_secs(600);
/// One line of the checks.
const ANSWERS: Duration = Duration::from_secs(120);
/// The reset answers to nobody.
const CUT: Duration = Duration::from_secs(5);

/// Who waits for whom: the first comes up first.
const ORDER: [(&str, &str); 3] =
    [("low", ""), ("mid", "after = [\"low\"]"), ("top", "needs = [\"mid\"]")];
/// Declared, and acknowledged, right before the second cut.
const LATE: &str = "late";

const SCRIPT: &str = "mkdir -p www\necho $INSTANCE_INDEX > www/index.html\n\
                      exec busybox httpd -f -p \"$PORT\" -h www\n";

/// Builds what the guest is given.
pub fn compile() -> Result<()> {
    rootfs::run("tiny", rootfs::Mode::WhenNeeded)?;
    host::build(true).map(drop)
}

/// Installs the program as a package does, lets the power fail twice, and looks at what is there.
pub fn cut(guest: &mut Guest) -> Result<()> {
    install(guest)?;
    for (name, waits) in ORDER {
        declare(guest, name, waits, "/etc/terrarium/apps.d")?;
    }
    declare(guest, LATE, "", "/srv")?;
    let start = "sync; systemctl daemon-reload; systemctl enable --now terrarium.service";
    guest.answer(start, UNIT_STARTS)?;
    let names = ORDER.map(|(name, _)| name);
    until_they_run(guest, &names).context("before the power failed")?;

    fail(guest)?;
    until_they_run(guest, &names).context("after the power had failed")?;
    is_as_declared(guest, &names)?;
    come_in_order(guest)?;

    guest.ok(&format!("terrarium apply --no-wait /srv/{LATE}.toml"))?;
    fail(guest)?;
    until_they_run(guest, &["low", "mid", "top", LATE]).context("what was acknowledged")?;
    is_as_declared(guest, &names)?;
    println!("vm power: two cuts; {} apps came back, and the one just acknowledged", names.len());
    Ok(())
}

/// The files that a package has, from those of this checkout.
fn install(guest: &Guest) -> Result<()> {
    let program = host::build(true)?;
    let stack = |end: &str| rootfs::output().join(format!("tiny.{end}"));
    let config = host::top().join("config");
    parcel::send(guest, &[program.clone(), stack("tar.zst"), stack("digest"), config.clone()])?;
    let copy = |from: &Path, to: &str| format!("cp -r {} {to}", from.display());
    let lines = [
        "set -e; mkdir -p /usr/lib/terrarium/stacks /etc/terrarium/apps.d /srv".to_owned(),
        copy(&program, "/usr/bin/terrarium"),
        copy(&stack("tar.zst"), "/usr/lib/terrarium/stacks/"),
        copy(&stack("digest"), "/usr/lib/terrarium/stacks/"),
        copy(&config.join("buildpacks"), "/usr/lib/terrarium/"),
        copy(&config.join("terrarium.service"), "/etc/systemd/system/"),
    ];
    guest.ok(&lines.join("; "))
}

fn declare(guest: &Guest, name: &str, waits: &str, dir: &str) -> Result<()> {
    let manifest = format!(
        "name = \"{name}\"\n{waits}\n[source]\npath = \"/srv/{name}\"\n[build]\nstack = \"tiny\"\n\
         buildpacks = [\"procfile\"]\nmemory = \"64MiB\"\ndisk = \"64MiB\"\n\
         [run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n[[port]]\ncontainer = 8080\n"
    );
    let file = |path: String, text: &str| format!("cat > {path} <<'END'\n{text}END\n");
    let lines = [
        format!("set -e; mkdir -p /srv/{name}\n"),
        file(format!("/srv/{name}/app.sh"), SCRIPT),
        file(format!("/srv/{name}/Procfile"), "web: sh app.sh\n"),
        file(format!("{dir}/{name}.toml"), &manifest),
    ];
    guest.ok(&lines.concat())
}

/// Cuts the power and waits for the next boot.
fn fail(guest: &mut Guest) -> Result<()> {
    let boot = boot_id(guest)?;
    let reset = "echo 1 > /proc/sys/kernel/sysrq; echo b > /proc/sysrq-trigger";
    let answered = run::succeeds(guest.ssh().arg(reset), CUT)?;
    ensure!(!answered, "the guest's kernel does not reset the machine");
    guest.until_it_answers()?;
    ensure!(boot_id(guest)? != boot, "the guest has not booted anew");
    Ok(())
}

fn boot_id(guest: &Guest) -> Result<String> {
    guest.answer("cat /proc/sys/kernel/random/boot_id", ANSWERS)
}

fn until_they_run(guest: &Guest, names: &[&str]) -> Result<()> {
    let seconds = APPS_RUN.as_secs();
    let each = format!(
        "for app in {}; do terrarium app $app > /dev/null || exit 1; done",
        names.join(" ")
    );
    let all = format!("timeout {seconds} sh -c 'until ({each}) 2> /dev/null; do sleep 1; done'");
    let what = "terrarium apps; systemctl status --no-pager --lines=40 terrarium; false";
    guest.answer(&format!("{all} || {{ {what}; }}"), APPS_RUN + ANSWERS).map(drop)
}

/// They run as if nothing had been: no crash is counted, nothing was staged again, who asks is told.
fn is_as_declared(guest: &Guest, names: &[&str]) -> Result<()> {
    for name in names {
        let app = guest.answer(&format!("terrarium app {name} --json"), ANSWERS)?;
        let app: serde_json::Value = serde_json::from_str(&app).context("the app as JSON")?;
        let one = &app["processes"][0]["instances"][0];
        ensure!(one["crash_count"] == 0, "{name}: a crash is counted: {one}");
        let port = &one["ports"][0]["host"];
        let body = guest.answer(&format!("busybox wget -q -O - http://127.0.0.1:{port}/"), ANSWERS);
        ensure!(body.with_context(|| format!("{name} at {port}"))?.trim() == "0", "{name} answers");
        // By the journal of this boot: an app's own lines before the cut are not on the disk at once.
        let staged = format!("creating container for {name}-stage");
        let staged =
            format!("journalctl -b -u terrarium.service --no-pager | grep '{staged}'; true");
        let staged = guest.answer(&staged, ANSWERS)?;
        ensure!(staged.trim().is_empty(), "{name} was staged again: {staged}");
        let why = guest.answer(&format!("terrarium explain {name}"), ANSWERS)?;
        ensure!(why.contains("the box was started anew"), "explain {name} says: {why}");
    }
    let restarts =
        guest.answer("systemctl show --value -p NRestarts terrarium.service", ANSWERS)?;
    ensure!(restarts.trim() == "0", "systemd had to start the daemon again: {restarts}");
    Ok(())
}

/// Since the last boot each began when the one that it waits for was healthy.
fn come_in_order(guest: &Guest) -> Result<()> {
    let last = |name: &str, text: &str| -> Result<String> {
        let lines = said(guest, name, text)?;
        let line = lines.last().with_context(|| format!("{name} never said `{text}`"))?;
        Ok(line.split(' ').next().unwrap_or_default().to_owned())
    };
    for pair in ORDER.windows(2) {
        let (before, after) = (pair[0].0, pair[1].0);
        let healthy = last(before, "Container became healthy")?;
        let begun = last(after, "Cell creating container for instance")?;
        ensure!(healthy <= begun, "{after} began at {begun}, {before} was healthy at {healthy}");
    }
    Ok(())
}

/// Lines of an app's log.
fn said(guest: &Guest, name: &str, text: &str) -> Result<Vec<String>> {
    let all = guest.answer(&format!("terrarium logs {name} -n 1000"), ANSWERS)?;
    Ok(all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect())
}
