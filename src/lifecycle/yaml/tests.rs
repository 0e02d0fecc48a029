//! What is read and what is refused, as tables.

use super::{DEPTH_MAX, Value, parse};

/// The value as JSON text, null as `null`.
fn show(value: &Value) -> String {
    let quote = |text: &str| serde_json::to_string(text).expect("text is JSON");
    match value {
        Value::Null => "null".into(),
        Value::Text(text) => quote(text),
        Value::List(items) => {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(","))
        }
        Value::Map(pairs) => {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| quote(k) + ":" + &show(v)).collect();
            format!("{{{}}}", pairs.join(","))
        }
    }
}

#[test]
fn what_buildpacks_write_is_read() {
    for (text, want) in [
        ("", "null"),
        ("# nothing\n\n", "null"),
        ("---\n", "null"),
        ("--- {}\n", "{}"),
        ("--- {}", "{}"),
        ("---\ndefault_process_types: {}\n", r#"{"default_process_types":{}}"#),
        (
            "---\ndefault_process_types:\n  web: bundle exec rackup -p $PORT\n",
            r#"{"default_process_types":{"web":"bundle exec rackup -p $PORT"}}"#,
        ),
        ("---\naddons: []\nconfig_vars:\n  A: 1\n", r#"{"addons":[],"config_vars":{"A":"1"}}"#),
        (
            "web: python3 hello.py\r\nworker: sh w.sh\r\n",
            r#"{"web":"python3 hello.py","worker":"sh w.sh"}"#,
        ),
        ("web: a # note\n#b\n\nx: a#b\n", r#"{"web":"a","x":"a#b"}"#),
        ("web: java -jar x:y http://z\n", r#"{"web":"java -jar x:y http://z"}"#),
        ("web: 'it''s: #1'  # c\n", r#"{"web":"it's: #1"}"#),
        (
            r#"web: "a\t\"b\" \\ \x41\u00e9\ud83d\ude00 \U0001F600""#,
            "{\"web\":\"a\\t\\\"b\\\" \\\\ Aé😀 😀\"}",
        ),
        ("\"web\" : a\n'x y': b\n", r#"{"web":"a","x y":"b"}"#),
        ("a:\nb: ~\nc: null\nd: ''\n", r#"{"a":null,"b":null,"c":null,"d":""}"#),
        ("v: 1.10\nt: true\n", r#"{"v":"1.10","t":"true"}"#),
        ("just text\n", r#""just text""#),
        ("\u{feff}a: b\n", r#"{"a":"b"}"#),
        ("a: b\n...\n", r#"{"a":"b"}"#),
    ] {
        assert_eq!(parse(text).map(|v| show(&v)), Ok(want.to_owned()), "{text:?}");
    }
}

#[test]
fn a_launch_file_is_a_list_of_maps() {
    let want = r#"{"processes":[{"type":"web","command":"./run","limits":{"memory":"64"}},{"type":"x","platforms":{"cloudfoundry":{"sidecar_for":["web","worker"]}}}]}"#;
    let block = "---
processes:
- type: web
  command: ./run
  limits:
    memory: 64
- type: x
  platforms:
    cloudfoundry:
      sidecar_for:
      - web
      - worker
";
    let mixed = "processes:
  -
    type: web
    command: \"./run\"
    limits: {memory: 64}

  - type: x   # the second
    platforms: {cloudfoundry: {sidecar_for: [web, 'worker']}}
";
    let json = "{\"processes\": [\n\t{\"type\":\"web\",\"command\":\"./run\",\"limits\":{\"memory\":64}},\n\t{\"type\":\"x\",\"platforms\":{\"cloudfoundry\":{\"sidecar_for\":[\"web\",\"worker\"]}}}\n]}\n";
    for text in [block, mixed, json] {
        assert_eq!(parse(text).map(|v| show(&v)), Ok(want.to_owned()), "{text}");
    }
    assert_eq!(
        parse("- - a\n  - b\n-\n- k: v\n  l:\n  - m\n").map(|v| show(&v)),
        Ok(r#"[["a","b"],null,{"k":"v","l":["m"]}]"#.to_owned())
    );
}

#[test]
fn long_and_many_lined_text_is_folded_as_yaml_says() {
    for (text, want) in [
        ("a: one\n  two\n\n  three\nb: c", r#"{"a":"one two\nthree","b":"c"}"#),
        ("a:\n  one\n  two\n", r#"{"a":"one two"}"#),
        ("a: 'one\n\n  two'\nb: c", r#"{"a":"one\ntwo","b":"c"}"#),
        ("a: \"one\\\n  two \\ \n  three\"\n", r#"{"a":"onetwo   three"}"#),
        ("a: |\n  one\n   two\n\n  three\n\nb: c", r#"{"a":"one\n two\n\nthree\n","b":"c"}"#),
        ("a: |-\n  one\n\nb: c", r#"{"a":"one","b":"c"}"#),
        ("a: |+\n  one\n\nb: c", r#"{"a":"one\n\n","b":"c"}"#),
        ("a: >\n  one\n  two\n\n  three\n", r#"{"a":"one two\nthree\n"}"#),
        ("a: >-\n  one\n    two\n  three\n", r#"{"a":"one\n  two\nthree"}"#),
        ("a: |2 # c\n   one\n", r#"{"a":" one\n"}"#),
        ("a: |\nb: c", r#"{"a":"","b":"c"}"#),
        ("- |\n x: y\n- z", r#"["x: y\n","z"]"#),
        ("--- |\none\n# two\n", r##""one\n# two\n""##),
    ] {
        assert_eq!(parse(text).map(|v| show(&v)), Ok(want.to_owned()), "{text:?}");
    }
}

#[test]
fn anchors_aliases_and_merge_keys_are_followed() {
    for (text, want) in [
        ("a: &x b\nc: *x # twice\n", r#"{"a":"b","c":"b"}"#),
        (
            "a: &x\n  b: c\n  d: e\nf:\n  <<: *x\n  d: g\n",
            r#"{"a":{"b":"c","d":"e"},"f":{"d":"g","b":"c"}}"#,
        ),
        (
            "- &x {a: b}\n- &y\n  c: d\n- <<: [*x, *y]\n  c: z\n",
            r#"[{"a":"b"},{"c":"d"},{"c":"z","a":"b"}]"#,
        ),
        (
            "- &x\n  - a\n  - b\n- [*x, &y c, *y]\n- {<<: {k: v}, k: w}\n",
            r#"[["a","b"],[["a","b"],"c","c"],{"k":"w"}]"#,
        ),
        ("a: &x |\n  text\nb: *x", r#"{"a":"text\n","b":"text\n"}"#),
        ("a: &x\nb: *x", r#"{"a":null,"b":null}"#),
        ("a: &x\n- b\nc: *x", r#"{"a":["b"],"c":["b"]}"#),
    ] {
        assert_eq!(parse(text).map(|v| show(&v)), Ok(want.to_owned()), "{text:?}");
    }
    // Each line is ten times the one before it.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let many = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{many}]\n"));
    }
    assert!(parse(&bomb).expect_err("refused").why.contains("more than a MiB"));
}

#[test]
fn lines_are_known_of_keys_and_values() {
    let node = super::nodes("a: 1\nb:\n  - c: \"2\"\n").expect("YAML");
    let pairs = node.as_map().expect("a map");
    assert_eq!((pairs[1].line, pairs[1].value.line), (2, 3));
    let super::Tree::List(items) = &pairs[1].value.tree else { panic!("{pairs:?}") };
    let inner = &items[0].as_map().expect("a map")[0];
    assert_eq!((inner.line, inner.value.line), (3, 3));
    assert_eq!((inner.value.column, items[0].column, pairs[0].value.column), (8, 5, 4));
    let flow = super::nodes("a: {b: [1, x]}").expect("YAML");
    let list = flow.get("a").and_then(|it| it.get("b")).expect("a list");
    let super::Tree::List(items) = &list.tree else { panic!("{list:?}") };
    assert_eq!((list.column, items[1].column), (8, 12));
    // Characters, as editors count them.
    let wide = super::nodes("ä: [ü, x]\nb: 1\n").expect("YAML");
    let super::Tree::List(items) = &wide.get("ä").expect("a list").tree else {
        panic!("{wide:?}")
    };
    assert_eq!(
        (items[0].column, items[1].column, wide.get("b").map(|b| b.column)),
        (5, 8, Some(4))
    );
    assert_eq!(inner.value.tree, super::Tree::Text { text: "2".into(), plain: false });
    assert_eq!(
        node.get("a").map(|a| a.tree.clone()),
        Some(super::Tree::Text { text: "1".into(), plain: true })
    );
}

#[test]
fn what_is_not_read_is_refused_with_its_line() {
    for (text, line, why) in [
        ("a: b\na: c", 2, "there twice"),
        ("a: b: c", 1, "quote the whole text"),
        ("a: b\n  c: d", 2, "quote the whole text"),
        ("a:\n  b: c\n d: e", 3, "indented more than"),
        ("a: x\n  - b", 3, ""),
        ("a: - b", 1, "below its key"),
        ("a:\n\tb: c", 2, "a tab cannot indent"),
        ("a: & b", 1, "no name"),
        ("a: *x", 1, "no anchor `&x` above"),
        ("a: &x [*x]", 1, "no anchor `&x` above"),
        ("a: &x b\nc:\n  <<: *x\n", 3, "takes a map"),
        ("a: !ruby/hash {}", 1, "tags"),
        ("a: @b", 1, "cannot begin with `@`"),
        ("? a\n: b", 1, "are not read here"),
        ("%YAML 1.2\n---\n", 1, "directives"),
        ("a: b\n---\nc: d", 2, "second document"),
        ("a: 'b\n\nc", 1, "never closed"),
        ("a: \"b\\q\"", 1, "no escape"),
        ("a: \"\\ud83dx\"", 1, "no escape"),
        ("a: 'b' c", 1, "does not belong here"),
        ("a: [b, c", 1, "ends inside"),
        ("a: [b c] d", 1, "does not belong here"),
        ("a: {b}", 1, "a `: ` is missing"),
        ("a: [b\nc: d]", 2, "is missing here"),
        ("a: [,]", 1, "missing here"),
        ("a: {b: c, b: d}", 1, "there twice"),
        ("a: |x\n  b", 1, "no block header"),
        ("text\na: b", 2, "quote the whole text"),
        ("- a\nb: c", 2, "check the indentation"),
    ] {
        match parse(text) {
            Err(err) => {
                assert!(err.why.contains(why), "{text:?}: {err}");
                assert_eq!(err.line, line, "{text:?}: {err}");
            }
            Ok(value) => assert!(why.is_empty(), "{text:?} was read as {}", show(&value)),
        }
    }
}

#[test]
fn nesting_and_broken_bytes_end_in_an_error_not_in_a_crash() {
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", "")] {
        let deep = |n: usize| open.repeat(n) + "x" + &close.repeat(n);
        assert!(parse(&deep(DEPTH_MAX - 2)).is_ok(), "{open}");
        assert!(parse(&deep(10_000)).is_err(), "{open}");
    }
    // Every short text over the marks of the language is read or refused, and both end.
    let marks = ["a", ":", " ", "\n", "-", "\"", "'", "[", "{", "}", ",", "|", ">", "#", "\\", "é"];
    let mut texts = vec![String::new()];
    for _ in 0..4 {
        texts = texts.iter().flat_map(|t| marks.iter().map(move |m| format!("{t}{m}"))).collect();
        texts.iter().for_each(|text| drop(parse(text)));
    }
}
