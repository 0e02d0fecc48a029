//! What becomes of an app's output.

use super::lab::Lab;

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
