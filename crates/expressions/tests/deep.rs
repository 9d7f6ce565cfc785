//! Nothing that somebody writes takes more of the stack than a thread of a server has.

use cel::Context;
use kedge_expressions::{compile, environment, evaluate};

/// Bytes that a thread has where nobody says otherwise.
const STACK: usize = 2 << 20;

/// Compiles and runs ever deeper expressions of a shape, until one is refused or the last one is done; whether one was.
fn grow(make: fn(usize) -> String) -> bool {
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || {
        [5, 20, 60, 90, 120, 240, 1000].into_iter().any(|depth| match compile(&make(depth)) {
            Ok(program) => {
                let done = evaluate(program.expression(), &Context::with_env(environment()));
                assert!(done.is_ok(), "{depth}: {done:?}");
                false
            }
            Err(_) => true,
        })
    });
    thread.expect("a thread").join().expect("it ends well")
}

#[test]
fn parts_within_parts_are_refused_before_the_stack_ends() {
    let within: [fn(usize) -> String; 6] = [
        |depth| format!("{}1{}", "(".repeat(depth), ")".repeat(depth)),
        |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth)),
        |depth| format!("{}1{}", "int(".repeat(depth), ")".repeat(depth)),
        |depth| (0..depth).fold("1".to_owned(), |inner, number| format!("cel.bind(x{number}, 1, {inner})")),
        |depth| (0..depth).fold("1".to_owned(), |inner, _| format!("[1].map(x, {inner})")),
        |depth| (0..depth).fold("1".to_owned(), |inner, _| format!("(true ? {inner} : 2)")),
    ];
    for make in within {
        assert!(grow(make), "{}", make(2));
    }
}

#[test]
fn chains_are_refused_before_the_stack_ends() {
    let chains: [fn(usize) -> String; 2] =
        [|length| format!("1{}", " + 1".repeat(length)), |length| format!("[1]{}", ".map(x, x)".repeat(length))];
    for make in chains {
        assert!(grow(make), "{}", make(2));
    }
    // The parser makes these as flat as it can.
    assert!(!grow(|length| format!("{}true", "!!".repeat(length))));
    assert!(!grow(|length| format!("true{}", " && true".repeat(length))));
}
