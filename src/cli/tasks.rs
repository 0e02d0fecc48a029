//! The verbs about tasks: tasks, task, cancel.

use super::error::{CliError, code};
use super::remote::Remote;
use super::show::tasks as show;
use super::ui::{Ui, now_ms};
use crate::api::apps::ErrorKind;
use crate::model::view::TaskView;
use serde_json::{Value, json};

/// `terrarium tasks`.
pub async fn tasks(ui: &mut Ui, remote: &Remote) -> Result<u8, CliError> {
    let all = remote.tasks().await?;
    match ui.json {
        true => ui.document(&all)?,
        false => {
            let views: Vec<TaskView> = all.into_iter().map(view).collect();
            ui.print(&show::tasks(&views, now_ms(), ui.color))?;
        }
    }
    Ok(0)
}

/// `terrarium task GUID`.
pub async fn task(ui: &mut Ui, remote: &Remote, guid: &str) -> Result<u8, CliError> {
    let task = remote.task(guid).await.map_err(|err| plain(err, guid))?;
    let shown = view(task.clone());
    match ui.json {
        true => ui.document(&task)?,
        false => ui.print(&show::task(&shown, now_ms(), ui.color))?,
    }
    Ok(if shown.failed { code::NOT_RUNNING } else { 0 })
}

/// `terrarium cancel GUID...`: all of them, also when one cannot be; the first error is told.
pub async fn cancel(ui: &mut Ui, remote: &Remote, guids: &[String]) -> Result<u8, CliError> {
    let mut first = None;
    let mut done = Vec::new();
    for guid in guids {
        match remote.cancel_task(guid).await {
            Ok(()) => {
                ui.note(&format!("{guid}: cancelled"));
                done.push(guid);
            }
            Err(err) => drop(first.get_or_insert(plain(err, guid))),
        }
    }
    if ui.json {
        ui.document(&json!({ "cancelled": done }))?;
    }
    first.map_or(Ok(0), Err)
}

/// Diego's words for clients, in ours: which task it is, and what can be done.
fn plain(err: CliError, guid: &str) -> CliError {
    let CliError::Refused(mut view) = err else { return err };
    view.message = match ErrorKind::of(&view) {
        ErrorKind::NotFound => {
            format!("there is no task `{guid}`; `terrarium tasks` lists what there is")
        }
        ErrorKind::Conflict => format!(
            "task `{guid}` is past that: {}; `terrarium task {guid}` shows its end",
            view.message
        ),
        _ => view.message,
    };
    CliError::Refused(view)
}

/// What a newer daemon says otherwise is left empty.
fn view(task: Value) -> TaskView {
    serde_json::from_value(task).unwrap_or_default()
}
