//! `[health]` and `[readiness]`.

use super::each_is_named;

#[test]
fn every_mistake_is_named_with_its_place_and_its_cure() {
    each_is_named(&[
        (
            "[health]\ntype = \"htpt\"",
            "4:8 `health.type` cannot be \"htpt\" | did you mean \"http\"?",
        ),
        (
            "[health]\ntype = \"watchdog\"\nport = 1",
            "5:8 a \"watchdog\" check has no port | remove it or change `type`",
        ),
        (
            "[health]\ntype = \"exec\"",
            "3:1 `command` is missing in [health] | add command = \"PROGRAM\"",
        ),
        (
            "[health]\ncommand = \"a\"",
            "4:11 only \"exec\" checks have a command | add type = \"exec\"",
        ),
        (
            "[health]\ntype = \"process\"\ncommand = \"a\"",
            "5:11 only \"exec\" checks have a command | write type = \"exec\"",
        ),
        (
            "[health]\ntype = \"exec\"\ncommand = []",
            "5:11 `health.command` is empty | write the program and its arguments",
        ),
        ("[health]\nfailures = 0", "4:12 `health.failures` is 0, out of range | 1 to 1000"),
        (
            "[[health.check]]\ntype = \"none\"",
            "3:1 a further check of this type checks nothing | remove it",
        ),
        (
            "[readiness]\ntype = \"process\"\n[[port]]",
            "4:8 readiness cannot be \"process\" | write \"port\", \"http\" or \"exec\"",
        ),
        (
            "[readiness]\nstart_timeout = \"1s\"\n[[port]]",
            "4:1 unknown key `start_timeout` in [readiness]",
        ),
        (
            "[health]\ntype = \"port\"",
            "3:1 process `web` has no port that could be checked | add [[port]]",
        ),
        (
            "[health]\npath = \"/\"\n[[port]]",
            "4:8 only \"http\" checks have a path | add type = \"http\"",
        ),
        (
            "[health]\ntype = \"port\"\npath = \"/\"\n[[port]]",
            "5:8 only \"http\" checks have a path | write type",
        ),
        ("[health]\ntype = \"process\"\nport = 1\n[[port]]", "5:8 a \"process\" check has no port"),
        (
            "[health]\ntype = \"http\"\nport = \"x\"\n[[port]]",
            "5:8 there is no port `x` | declared: \"web\" (8080)",
        ),
        ("[health]\nport = 81\n[[port]]", "4:8 there is no port `81`"),
        (
            "[health]\nport = true\n[[port]]",
            "4:8 `health.port` must be the name or the number of a port",
        ),
        ("[health]\ntype = \"http\"\npath = \"x\"\n[[port]]", "5:8 `x` is not a path"),
        ("[health]\ninterval = 5", "4:12 time `5` has no unit"),
        (
            "[health]\ninterval = { health = \"5s\" }",
            "4:14 unknown key `health` in [health.interval] | did you mean `healthy`?",
        ),
        (
            "[health]\ntimeout = \"1ms\"",
            "4:11 `health.timeout` is 1ms, out of range | 100ms to 10m",
        ),
    ]);
}
