//! So much of the shell as documentation has.

/// The words of the simple commands in a line of shell, as far as documentation needs it: quotes, comments, pipes, redirections.
pub(crate) fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                word.extend(chars.by_ref().take_while(|&quoted| quoted != c));
            }
            '#' if word.is_none() => break,
            ' ' | '|' | ';' | '&' | '<' | '>' => {
                let last = commands.last_mut().expect("never empty");
                last.extend(word.take());
                match c {
                    ' ' => {}
                    '<' | '>' => last.push(c.to_string()),
                    _ => commands.push(Vec::new()),
                }
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    commands.last_mut().expect("never empty").extend(word);
    commands.retain(|words| !words.is_empty());
    commands
}

/// The arguments of the program, if a command runs it.
pub(crate) fn arguments(words: &[String]) -> Option<Vec<&str>> {
    let is_assignment = |word: &&str| {
        word.split_once('=')
            .is_some_and(|(name, _)| name.starts_with("TIDINGS_"))
    };
    let mut words = words
        .iter()
        .map(String::as_str)
        .skip_while(is_assignment)
        .take_while(|word| !matches!(*word, "<" | ">"));
    let words: Vec<&str> = match words.next()? {
        "tidings" => ["tidings"].into_iter().chain(words).collect(),
        "./dev" => match words.next()? {
            "tidings" => ["tidings"].into_iter().chain(words).collect(),
            "run" => ["tidings", "serve"].into_iter().chain(words).collect(),
            _ => return None,
        },
        _ => return None,
    };
    Some(words)
}

#[test]
fn commands_are_read_as_the_shell_reads_them() {
    let words = simple_commands("A=1 ./dev tidings publish 'a b' --key '{id}' < file | tidings listen x > out  # why");
    assert_eq!(
        words[0],
        [
            "A=1", "./dev", "tidings", "publish", "a b", "--key", "{id}", "<", "file"
        ]
    );
    assert_eq!(words[1], ["tidings", "listen", "x", ">", "out"]);
    assert_eq!(words.len(), 2);
    let program = arguments(&words[1]).expect("the program");
    assert_eq!(program, ["tidings", "listen", "x"]);
}
