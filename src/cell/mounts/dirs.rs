//! Directories that an image wants its containers to have: made inside, as the image may have users of
//! its own for them.

use crate::exec::cancel::Cancel;
use crate::exec::metrics::COUNTERS;
use crate::exec::run::Executor;
use crate::exec::steps::StepResult;
use crate::model::action::RunAction;
use crate::model::process::ProcessSpec;
use std::time::Instant;

/// Makes those of `dirs`, absolute paths inside, that are missing. `like`: the process that comes
/// after, for environment and open files. Our own programs have to be in the container.
pub(in crate::cell) async fn make_dirs(
    exec: &Executor,
    dirs: &[String],
    (like, log_source): (&ProcessSpec, &str),
    cancel: &Cancel,
) -> StepResult {
    if dirs.is_empty() {
        return Ok(());
    }
    let begun = Instant::now();
    let process = ProcessSpec {
        path: "/tmp/lifecycle/make-dirs".into(),
        args: dirs.to_vec(),
        env: like.env.clone(),
        dir: Some("/".into()),
        user: "root".into(),
        nofile: like.nofile,
        ..ProcessSpec::default()
    };
    let log_source = log_source.to_owned();
    let run = RunAction { process, log_source, suppress_log_output: false };
    let done = exec.help(&run, cancel).await;
    COUNTERS.setups.add(begun, done.is_ok());
    done
}
