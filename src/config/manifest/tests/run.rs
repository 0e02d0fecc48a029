//! `[run]`, `[process.X]`, `[restart]`, `[log]`.

use super::each_is_named;

#[test]
fn every_mistake_is_named_with_its_place_and_its_cure() {
    each_is_named(&[
        (
            "[run]\ninstnaces = 2",
            "4:1 unknown key `instnaces` in [run] | did you mean `instances`?",
        ),
        ("[run]\nmemory = 256", "4:10 size `256` has no unit | write \"256MiB\""),
        ("[run]\nmemory = \"256\"", "4:10 size `256` has no unit | write \"256MiB\" or \"256B\""),
        ("[run]\nmemory = \"256M\"", "4:10 unit `M` is not known here"),
        ("[run]\nmemory = true", "4:10 `run.memory` must be a string, not true or false"),
        ("[run]\nmemory = \"2MiB\"", "4:10 `run.memory` is 2MiB, out of range | 4MiB to 64TiB"),
        ("[run]\ndisk = \"1KiB\"", "4:8 `run.disk` is 1KiB, out of range"),
        ("[run]\ninstances = 1001", "4:13 `run.instances` is 1001, out of range | 0 to 1000"),
        ("[run]\ninstances = -1", "4:13 `run.instances` is -1, out of range"),
        (
            "[run]\ninstances = \"2\"",
            "4:13 `run.instances` must be a number, not a string | write 2",
        ),
        ("[run]\ninstances = 1.5", "4:13 `run.instances` must be a whole number, not a fraction"),
        ("[run]\ncpu_weight = 0", "4:14 `run.cpu_weight` is 0, out of range | 1 to 100"),
        ("[run]\npids = 1", "4:8 `run.pids` is 1, out of range"),
        ("[run]\nnofile = 9999999", "4:10 `run.nofile` is 9999999, out of range"),
        ("[run]\ncommand = \" \"", "4:11 `run.command` is empty"),
        (
            "[run]\ncommand = [\"a\"]",
            "4:11 `run.command` must be a string, not a list | write one line",
        ),
        ("[run]\ncommand = \"a\\u0000b\"", "4:11 `run.command` holds a NUL character"),
        (
            "[run]\nuser = \"99999999999\"",
            "4:8 `99999999999` is no id | write a number from 0 to 65535",
        ),
        ("[run]\nuser = \"1:70000\"", "4:8 `70000` is no id | write a number from 0 to 65535"),
        ("[run]\nuser = \"a b\"", "4:8 `a b` is not a user | write \"vcap\""),
        (
            "[run]\nmemory_low = \"1MiB\"",
            "4:1 `run.memory_low` is not supported by this version yet",
        ),
        ("[log]\nrate = \"16KiB\"", "4:8 `16KiB` is not a rate | write \"16KiB/s\" or \"none\""),
        ("[log]\nrate = 16384", "4:8 `log.rate` must be a string, not a number"),
        ("[log]\nburst = 1", "4:1 `log.burst` is not supported by this version yet"),
        (
            "[run]\nlog_rate = \"1KiB/s\"",
            "4:1 unknown key `log_rate` in [run] | write rate = \"16KiB/s\" below [log]",
        ),
        ("[[run]]", "3:1 `run` must be one table, not a list | write [run] once"),
        (
            "[process.worker]\n[[port]]",
            "4:1 port `web` belongs to no process | add ports = [\"web\"]",
        ),
        (
            "[process.web]\nports=[\"web\"]\n[process.b]\nports=[\"web\"]\n[[port]]\npublish=80",
            "7:1 published port `web` belongs to both `b` and `web`",
        ),
        (
            "[process.web]\nports = [\"http\"]\n[[port]]",
            "4:10 there is no port `http` | declared: \"web\" (8080)",
        ),
        ("[process]", "3:1 `process` names no process | write [process.web]"),
        (
            "[process]\ncommand = \"a\"",
            "4:11 `process.command` must be a table, not a string | write [process.NAME] above",
        ),
        ("[process.Web]", "3:10 process `Web` is not good"),
        ("[process.a]\nfoo = 1", "4:1 unknown key `foo` in [process.a]"),
        (
            "[run]\ncommand = \"a\"\n[process.worker]",
            "4:11 `run.command` starts the `web` process, but there is no [process.web]",
        ),
        (
            "[run]\nstop = 1",
            "4:1 unknown key `stop` in [run] | write signal and timeout below [stop]",
        ),
        (
            "[restart]\npolicy = \"onfailure\"",
            "4:10 `restart.policy` cannot be \"onfailure\" | did you mean \"on-failure\"?",
        ),
        ("[restart]\nbackoff = 1", "4:1 `restart.backoff` is not supported by this version yet"),
    ]);
}
