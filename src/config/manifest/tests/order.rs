//! `after`, `needs` and `[rollout]`.

use super::*;

#[test]
fn every_mistake_is_named_with_its_place_and_its_cure() {
    each_is_named(&[
        ("after = \"db\"", "3:9 `after` must be a list, not a string | write [\"db\"]"),
        ("after = [\"db\", \"A B\"]", "3:16 `A B` is no app | 1 to 40 of a-z"),
        ("needs = [\"x\", \"x\"]", "3:15 app `x` is named twice | remove one"),
        ("after = [\"x\"]\nneeds = [\"x\"]", "4:10 app `x` is named twice | remove one"),
        (
            "[rollout]\nstrategy = \"roling\"",
            "4:12 `rollout.strategy` cannot be \"roling\" | did you mean \"rolling\"?",
        ),
        (
            "[rollout]\nstrategy = \"blue-green\"",
            "4:12 `rollout.strategy` cannot be \"blue-green\" in this version yet | write",
        ),
        (
            "[rollout]\nmax_in_flight = 0",
            "4:17 `rollout.max_in_flight` is 0, out of range | 1 to 1000",
        ),
        (
            "[rollout]\nrollback = \"no\"",
            "4:12 `rollout.rollback` must be true or false, not a string",
        ),
        (
            "[rollout]\nauto_rollback = true",
            "4:1 unknown key `auto_rollback` in [rollout] | write rollback",
        ),
        ("[rollout]\ndeadline = \"5m\"", "4:1 `rollout.deadline` is not supported by this"),
    ]);
}

#[test]
fn who_an_app_waits_for_and_how_it_is_replaced_is_read() {
    let app = |text: &str| {
        let text = format!("name = \"web\"\n{text}\n[source]\npath = \".\"");
        parse(&text, "web.toml", Path::new("/x"))
            .unwrap_or_else(|it| panic!("{}", it.render(false)))
    };
    let it = app("after = [\"log\"]\nneeds = [\"db\", \"cache\"]");
    let names: Vec<String> = it.waits().iter().map(ToString::to_string).collect();
    assert_eq!((it.after.len(), names.join(" ").as_str()), (1, "log db cache"));
    assert_eq!(it.rollout, Rollout::default());
    let it = app("rollout = { strategy = \"recreate\", max_in_flight = 3, rollback = false }");
    let expected = Rollout { strategy: Strategy::Recreate, max_in_flight: 3, rollback: false };
    assert_eq!(it.rollout, expected);
}
