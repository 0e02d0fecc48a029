//! What becomes of an app's output.

use super::lab::{Lab, PATIENCE};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde_json::{Value, from_str};
use std::fs::read_to_string;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Instant;

const JOB: &str = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n\n\
                   [restart]\npolicy = \"never\"\n";

/// Names and sizes of an app's files, by name.
fn files(lab: &Lab, app: &str) -> Vec<(String, u64)> {
    let items = std::fs::read_dir(lab.root.join("var/lib/terrarium/logs")).expect("logs").flatten();
    let named = items.map(|item| {
        let size = item.metadata().map_or(0, |data| data.len());
        (item.file_name().into_string().expect("UTF-8"), size)
    });
    let mut files: Vec<_> = named.filter(|(name, _)| name.starts_with(app)).collect();
    files.sort();
    files
}

#[test]
fn row_52_output_takes_as_much_of_the_disk_as_the_owner_says() {
    let mut lab = Lab::new("files");
    lab.configure("log", "[log]\napp_bytes = \"64KiB\"\napp_files = 3\n");
    lab.serve();
    let script = "n=0; while [ $n -lt 4000 ]; do n=$((n+1)); echo \"line $n\"; done\n";
    lab.ok(&["apply", &lab.app("loud", script, JOB)]);
    lab.until_state("loud", "finished");
    lab.until("its end is told", |lab| (!lab.logged("loud", "finished").is_empty()).then_some(()));
    let files = files(&lab, "loud");
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["loud.log", "loud.log.1", "loud.log.2"]);
    assert!(files.iter().all(|(_, size)| *size <= 64 << 10), "{files:?}");
    // 4000 lines are more than that; the newest are there, none twice and none missed.
    let out = lab.ok(&["logs", "loud", "-n", "10000"]).out;
    let numbers = out.lines().filter_map(|line| line.split_once("OUT line "));
    let numbers: Vec<u32> = numbers.map(|(_, number)| number.parse().expect("a number")).collect();
    let first = 4001 - numbers.len() as u32;
    assert!(first > 1, "{first}");
    assert_eq!(numbers, (first..=4000).collect::<Vec<_>>());
    lab.finish();
}

#[test]
fn row_52_logs_are_followed_since_a_time_and_chosen_by_source_and_instance() {
    let lab = Lab::start("since");
    let script = "mkfifo /tmp/go\nexec 3<>/tmp/go\n\
                  for word in one two three; do echo $word; read x <&3; done\n";
    let manifest = "[run]\ninstances = 2\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n\
                    [health]\ntype = \"process\"\n";
    lab.ok(&["apply", &lab.app("app", script, manifest)]);
    let go = |word: &str| {
        assert_eq!(lab.inside("app", "echo > /tmp/go").code, 0);
        lab.until(word, |lab| lab.logged("app", &format!("WEB/0] OUT {word}")).pop())
    };
    lab.until("both speak", |lab| (lab.logged("app", "OUT one").len() == 2).then_some(()));
    let two = go("two");
    let since = two.split(' ').next().expect("a time");
    let texts = |args: &[&str]| {
        let out = lab.ok(args).out;
        let text = |line: &str| line.split_once(" [").expect("a line").1.to_owned();
        out.lines().map(text).collect::<Vec<_>>()
    };
    assert_eq!(texts(&["logs", "app", "--since", since]), ["APP/PROC/WEB/0] OUT two"]);
    let second = texts(&["logs", "app/1", "--source", "app"]);
    assert_eq!(second.last().expect("lines"), "APP/PROC/WEB/1] OUT one");
    assert!(second.iter().all(|line| line.starts_with("APP/PROC/WEB/1] ")), "{second:?}");
    assert_eq!(texts(&["logs", "app", "--since", "1h", "-n", "1"]), ["APP/PROC/WEB/0] OUT two"]);
    let staging = texts(&["logs", "app", "--source", "stg"]);
    assert!(
        !staging.is_empty() && staging.iter().all(|it| it.starts_with("STG/0] ")),
        "{staging:?}"
    );
    assert_eq!(texts(&["logs", "app", "--since", "2200-01-01"]), [""; 0]);

    let mut following = lab.command(&["logs", "-f", "--since", since, "app"]);
    let mut child = following.stdout(Stdio::piped()).spawn().expect("logs -f");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("UTF-8");
    assert!(next().ends_with("OUT two"));
    go("three");
    assert!(next().ends_with("OUT three"));
    child.kill().expect("end it");
    child.wait().expect("its end");
    lab.finish();
}

/// Processor time that the daemon has used.
fn cpu_seconds(lab: &Lab) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", lab.daemon_pid())).expect("stat");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks = |field: usize| fields.split(' ').nth(field).and_then(|it| it.parse::<f64>().ok());
    (ticks(11).expect("utime") + ticks(12).expect("stime")) / 100.0
}

#[test]
fn row_53_an_app_that_floods_is_not_held_up_and_costs_little() {
    let mut lab = Lab::new("flood");
    lab.configure("log", "[log]\nrate_lines = 100\n");
    lab.serve();
    let before = cpu_seconds(&lab);
    // 256 MiB in lines of 100 bytes.
    let line = "x".repeat(99);
    let script =
        format!("yes {line} | head -c 268435400; sleep 2; echo after the flood; echo err >&2\n");
    lab.ok(&[
        "apply",
        "--no-wait",
        &lab.app("flood", &script, &format!("{JOB}\n[log]\nrate = \"16KiB/s\"\n")),
    ]);
    lab.until_state("flood", "finished");
    let used = cpu_seconds(&lab) - before;
    assert!(used < 10.0, "{used} s of processor time for 256 MiB");
    lab.until("its end is told", |lab| (!lab.logged("flood", "finished").is_empty()).then_some(()));
    let told = lab.logged("flood", "app instance exceeded log rate limit");
    assert!(!told.is_empty());
    let text =
        "OUT app instance exceeded log rate limit (100 log-lines/sec) set by platform operator";
    assert!(told.iter().all(|line| line.ends_with(text)), "{told:?}");
    // Every line of the flood that was kept is whole; what came after the silence was heard.
    let kept = lab.logged("flood", "OUT xxx");
    assert!(kept.iter().all(|one| one.ends_with(&format!("OUT {line}"))));
    assert_eq!(lab.logged("flood", "OUT after the flood").len(), 1);
    assert_eq!(lab.logged("flood", "ERR err").len(), 1);
    let bytes: u64 = files(&lab, "flood").iter().map(|(_, size)| size).sum();
    assert!(bytes < 1 << 20, "{bytes}");

    let script = "n=0; while [ $n -lt 50 ]; do n=$((n+1)); echo $n; done\n";
    let manifest = |rate: &str| format!("{JOB}\n[log]\nrate = \"{rate}\"\n");
    lab.ok(&["apply", &lab.app("quiet", script, &manifest("0B/s"))]);
    lab.until_state("quiet", "finished");
    lab.until("it has told", |lab| (!lab.logged("quiet", "finished").is_empty()).then_some(()));
    assert!(!lab.logged("quiet", "log rate limit (0 bytes/sec)").is_empty());
    assert!(lab.logged("quiet", "WEB/0] OUT 5").is_empty());
    assert!(
        !lab.logged("quiet", "OUT Exit status 0").is_empty(),
        "what the cell says is no output"
    );
    lab.finish();
}

#[test]
fn row_52_the_journal_hears_every_line_when_the_owner_wants_it() {
    let mut lab = Lab::new("journal");
    let none = MsFlags::empty();
    mount(None::<&str>, "/run", Some("tmpfs"), none, None::<&str>).expect("a /run of our own");
    lab.configure("log", "[log]\njournal = true\n");
    lab.serve();
    // It is not there yet: nobody waits for it.
    lab.ok(&["apply", &lab.app("early", "echo unheard\n", JOB)]);
    lab.until_state("early", "finished");
    assert_eq!(lab.daemon_log().matches("journal.refused").count(), 1, "{}", lab.daemon_log());

    std::fs::create_dir_all("/run/systemd/journal").expect("directory");
    let journal = UnixDatagram::bind("/run/systemd/journal/socket").expect("bind");
    journal.set_read_timeout(Some(PATIENCE)).expect("a bound");
    lab.ok(&["apply", "--no-wait", &lab.app("heard", "echo to out; echo to err >&2\n", JOB)]);
    let mut found = Vec::new();
    let mut buffer = vec![0; 128 * 1024];
    while found.len() < 2 {
        let length = journal.recv(&mut buffer).expect("a line");
        let entry = String::from_utf8(buffer[..length].to_vec()).expect("UTF-8");
        if entry.contains("MESSAGE=to ") {
            found.push(entry);
        }
    }
    found.sort();
    let fields = "SYSLOG_IDENTIFIER=terrarium\nTERRARIUM_APP=heard\nTERRARIUM_INSTANCE=0\n\
                  TERRARIUM_SOURCE=APP/PROC/WEB\nMESSAGE=to";
    let expected = [format!("PRIORITY=3\n{fields} err\n"), format!("PRIORITY=6\n{fields} out\n")];
    assert_eq!(found, expected);
    assert!(lab.daemon_log().contains("journal.lines_lost"), "{}", lab.daemon_log());
    lab.until_state("heard", "finished");
    lab.until("the files have it, too", |lab| lab.logged("heard", "OUT to out").pop());

    // Unless the owner says otherwise, it is asked for where it is there.
    lab.end_daemon(Signal::SIGTERM);
    lab.configure("log", "[log]\njournal = \"auto\"\n");
    lab.serve();
    lab.ok(&["apply", "--no-wait", &lab.app("auto", "echo by itself\n", JOB)]);
    let mut heard = false;
    while !heard {
        let length = journal.recv(&mut buffer).expect("a line");
        heard = String::from_utf8_lossy(&buffer[..length]).contains("MESSAGE=by itself\n");
    }
    drop(journal);
    std::fs::remove_file("/run/systemd/journal/socket").expect("removed");
    lab.until_state("auto", "finished");
    lab.end_daemon(Signal::SIGTERM);
    let refused = lab.daemon_log().matches("journal.refused").count();
    lab.serve();
    lab.ok(&["apply", &lab.app("none", "echo unheard\n", JOB)]);
    lab.until_state("none", "finished");
    assert_eq!(lab.daemon_log().matches("journal.refused").count(), refused);
    lab.finish();
}

/// Stops the daemon where it stands, and lets it go on at the latest when the test is over.
struct Stopped(Pid);

impl Stopped {
    fn new(lab: &Lab) -> Stopped {
        let pid = Pid::from_raw(lab.daemon_pid() as i32);
        kill(pid, Signal::SIGSTOP).expect("stop the daemon");
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(pid), flags).expect("it stands still");
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

#[test]
fn an_app_goes_on_while_the_daemon_stands_still_and_its_log_says_what_was_lost() {
    let lab = Lab::start("still");
    let script = "mkfifo /tmp/go\nexec 3<>/tmp/go\necho before\nread x <&3\n\
                  n=0; while [ $n -lt 8000 ]; do n=$((n+1)); echo \"line $n\"; done >&2\n\
                  yes $(printf %01000d 0) | head -c 3000000\n\
                  echo > /tmp/on; read x <&3\necho; echo after; read x <&3\n";
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n\n\
                    [log]\nrate = \"none\"\n";
    lab.ok(&["apply", &lab.app("app", script, manifest)]);
    lab.until("it speaks", |lab| lab.logged("app", "OUT before").pop());
    let handle = lab.instance("app", 0)["handle"].as_str().expect("a handle").to_owned();
    let entry = lab.root.join("var/lib/terrarium/depot").join(handle).join("container.json");
    let entry: Value = from_str(&read_to_string(entry).expect("entry")).expect("JSON");
    let inside = format!("/proc/{}/root/tmp", entry["pid"][0].as_i64().expect("pid 1"));

    let stopped = Stopped::new(&lab);
    std::fs::write(format!("{inside}/go"), "\n").expect("go");
    let begin = Instant::now();
    lab.until("it has written it all", |_| {
        // Nobody can ask the daemon why not.
        assert!(begin.elapsed() < PATIENCE / 2, "the app was held up");
        std::fs::metadata(format!("{inside}/on")).ok()
    });
    drop(stopped);
    std::fs::write(format!("{inside}/go"), "\n").expect("go");
    lab.until("the rest comes", |lab| lab.logged("app", "OUT after").pop());
    let log = lab.ok(&["logs", "app", "-n", "10000"]).out;
    let lost: Vec<_> = log.lines().filter(|line| line.contains("OUT [terrarium: ")).collect();
    assert!(
        lost.len() == 1 && lost[0].ends_with("bytes dropped while nobody listened]"),
        "{lost:?}"
    );
    // What was not too much is there, each line once and in its order.
    let numbers =
        log.lines().filter_map(|line| line.split_once("ERR line ")?.1.parse::<u32>().ok());
    assert!(numbers.eq(1..=8_000));
    assert!(lab.daemon_log().contains("output.kept"), "{}", lab.daemon_log());
    lab.finish();
}
