//! What becomes of an app's output.

use super::lab::Lab;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

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
