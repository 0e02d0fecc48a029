//! `((name))` in a manifest of cf, replaced by what the vars files say. Pure.

use super::Mistake;
use crate::lifecycle::yaml::{Node, Tree};

/// Replaces every variable in `node`; `vars` is a map, of which a later entry of the same name wins.
/// `((a.b))` is the entry `b` of the map `a`. A text that is nothing but a variable becomes its value,
/// whatever that is; inside of text it has to be text.
pub fn fill(node: &mut Node, vars: &[(String, Node)], mistakes: &mut Vec<Mistake>) {
    let line = node.line;
    match &mut node.tree {
        Tree::Null => {}
        Tree::List(items) => items.iter_mut().for_each(|item| fill(item, vars, mistakes)),
        Tree::Map(pairs) => {
            pairs.iter_mut().for_each(|pair| fill(&mut pair.value, vars, mistakes));
        }
        Tree::Text { text, .. } => {
            let whole = text.strip_prefix("((").and_then(|rest| rest.strip_suffix("))"));
            if let Some(name) = whole.filter(|name| is_name(name)) {
                match find(name, vars) {
                    Some(found) => node.tree = found.tree.clone(),
                    None => mistakes.push(missing(line, name)),
                }
            } else {
                *text = inside(text, line, vars, mistakes);
            }
        }
    }
}

fn inside(text: &str, line: usize, vars: &[(String, Node)], mistakes: &mut Vec<Mistake>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find("((") {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let name = from[2..].split_once("))").map(|(name, _)| name).filter(|name| is_name(name));
        let Some(name) = name else {
            out.push_str("((");
            rest = &from[2..];
            continue;
        };
        match find(name, vars) {
            None => mistakes.push(missing(line, name)),
            Some(node) => match node.as_text() {
                Some(value) => out.push_str(value),
                None => {
                    let what = format!("(({name})) is {} inside of text", node.kind());
                    mistakes.push(Mistake::new(line, what, "give it text in the vars file"));
                }
            },
        }
        rest = &from[2 + name.len() + 2..];
    }
    out + rest
}

fn find<'a>(name: &str, vars: &'a [(String, Node)]) -> Option<&'a Node> {
    let mut parts = name.split('.');
    let first = parts.next()?;
    let (_, node) = vars.iter().rev().find(|(key, _)| key == name || key == first)?;
    match vars.iter().rev().find(|(key, _)| key == name) {
        Some((_, node)) => Some(node),
        None => parts.try_fold(node, |node, part| node.get(part)),
    }
}

fn missing(line: usize, name: &str) -> Mistake {
    let what = format!("variable (({name})) has no value");
    Mistake::new(line, what, format!("give it with --vars-file FILE or --var {name}=VALUE"))
}

/// As cf has them: no blanks, no parentheses.
fn is_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b'!');
    !name.is_empty() && name.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::yaml::nodes;

    #[test]
    fn variables_are_replaced_by_values_and_inside_of_text() {
        let vars = nodes("host: db\nn: 3\nlist: [a, b]\nuser: {name: joe}\n").expect("YAML");
        let Tree::Map(vars) = vars.tree else { panic!("no map") };
        let vars: Vec<_> = vars.into_iter().map(|pair| (pair.key, pair.value)).collect();
        let text = "a: ((n))\nb: http://((host)):80/((user.name))\nc: ((list))\nd: echo $((1+2))\n";
        let mut node = nodes(text).expect("YAML");
        let mut mistakes = Vec::new();
        fill(&mut node, &vars, &mut mistakes);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let text = |key: &str| node.get(key).and_then(Node::as_text).unwrap_or_default().to_owned();
        assert_eq!((text("a"), text("b")), ("3".into(), "http://db:80/joe".into()));
        assert_eq!(text("d"), "echo $((1+2))", "what a shell counts is no variable");
        assert!(
            matches!(node.get("c").map(|c| &c.tree), Some(Tree::List(items)) if items.len() == 2)
        );
        let mut node = nodes("a: b\nc: ((nope))\nd: x((list))\n").expect("YAML");
        fill(&mut node, &vars, &mut mistakes);
        let told: Vec<_> = mistakes.iter().map(|it| (it.line, it.what.as_str())).collect();
        let expected =
            [(2, "variable ((nope)) has no value"), (3, "((list)) is a list inside of text")];
        assert_eq!(told, expected);
    }
}
