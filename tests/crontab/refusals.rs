//! Lines that are wrong, with the words that say so.

use taskbay::crontab::{LONGEST_LINE, parse_crontab, parse_line};

#[track_caller]
fn refused(line: &str, words: &str) {
    let error = parse_line(line).expect_err(line).to_string();
    assert_eq!(error, words, "for {line}");
}

#[test]
fn fields_say_what_is_wrong_with_them() {
    refused("60 * * * * t", "column 1: minute `60`: out of range; the minute goes from 0 to 59");
    refused("0,1,60 * * * * t", "column 5: minute `60`: out of range; the minute goes from 0 to 59");
    refused("0 0-24 * * * t", "column 3: hour `0-24`: out of range; the hour goes from 0 to 23");
    refused("0 0 0 * * t", "column 5: day of the month `0`: out of range; the day of the month goes from 1 to 31");
    refused("0 0 * 13 * t", "column 7: month `13`: out of range; the month goes from 1 to 12");
    refused("0 0 * * 8 t", "column 9: day of the week `8`: out of range; the day of the week goes from 0 to 7");
    refused("*/0 * * * * t", "column 1: minute `*/0`: the step of a `*` is a whole number of 1 and more, as in `*/5`");
    refused("*/ * * * * t", "column 1: minute `*/`: the step of a `*` is a whole number of 1 and more, as in `*/5`");
    refused("0 22-2 * * * t", "column 3: hour `22-2`: a range goes up; write `22-23,0-2`");
    refused("0 5-5 * * * t", "column 3: hour `5-5`: a range goes up; write `5`");
    refused("0 0 * * 5-0 t", "column 9: day of the week `5-0`: a range goes up; write `5-7`");
    refused("0 0 * * 7-2 t", "column 9: day of the week `7-2`: a range goes up; write `0-2`");
    refused(
        "0,,1 * * * * t",
        "column 3: minute: there is a comma with nothing before or behind it; write numbers with one comma between them",
    );
    refused(
        "0 0 1- * * t",
        "column 5: day of the month `1-`: not understood; write a number, `a-b`, `*` or `*/n`, or several of them with commas \
         between",
    );
}

#[test]
fn what_other_crontabs_have_is_told_how_to_write_here() {
    refused("0 9 * * mon-fri t", "column 9: day of the week `mon-fri`: names are not understood; write `1-5`");
    refused("0 9 * * Friday-Sun t", "column 9: day of the week `Friday-Sun`: names are not understood; write `5-7`");
    refused("0 9 1 JAN * t", "column 7: month `JAN`: names are not understood; write `1`");
    refused(
        "0 9-17/3 * * * t",
        "column 3: hour `9-17/3`: only `*` can have a step; write the numbers themselves: `9,12,15`",
    );
    refused(
        "5/20 * * * * t",
        "column 1: minute `5/20`: only `*` can have a step; write the numbers themselves: `5,25,45`",
    );
    refused("@daily t", "column 1: `@daily` is not understood; write `0 0 * * *`");
    refused("@every 5m t", "column 1: `@every` is not understood; write five time fields, as `0 4 * * *`");
    refused(
        "0 */5 * * * * t",
        "column 13: `*` is a sixth time field; there are no seconds (and no years): remove the first field if it is that of the \
         seconds",
    );
    refused(
        "0 0 ? * 1 t",
        "column 5: day of the month `?`: not understood; write a number, `a-b`, `*` or `*/n`, or several of them with commas \
         between",
    );
    refused(
        "CRON_TZ=Europe/Berlin",
        "column 1: `CRON_TZ=Europe/Berlin` sets a variable, which a crontab of this kind does not have; write the time zone behind \
         the task, as `?tz=Europe/Berlin`",
    );
}

#[test]
fn lines_say_which_part_is_missing_or_too_much() {
    refused(
        "* * * *",
        "column 8: 4 of 5 time fields; a line begins with minute, hour, day of the month, month and day of the week, as `0 4 * * *`",
    );
    refused(
        "* * * * send_mail",
        "column 9: 4 of 5 time fields; a line begins with minute, hour, day of the month, month and day of the week, as `0 4 * * *`",
    );
    refused(
        "* * * * *",
        "column 10: no task behind the five time fields; its name comes before `?options` and a `{payload}`",
    );
    refused(
        "* * * * * two parts",
        "column 15: `parts` is not understood; what follows is `?options` and then a `{payload}`",
    );
    refused("* * * * * t # note", "column 13: `# note` is not understood; a comment has a line of its own");
    refused(
        "* * * * * t ?max=3 ?fill=1d",
        "column 20: `?fill=1d` is not understood; there is one `?`, with `&` between the options and no spaces",
    );
    refused(
        "* * * * * t{a: 1}",
        "column 11: task `t{a:`: `{` is not allowed without a space before; a name is a letter or `_`, and then letters, digits, \
         `_`, `:`, `-` and `/`, at most 128",
    );
    refused(
        "* * * * * t {a: 1} ?max=3",
        "column 13: payload: it does not end with `}`; nothing may stand behind it, neither options nor a comment",
    );
}

#[test]
fn options_say_what_they_take() {
    refused(
        "* * * * * t ?unknown=3",
        "column 14: options: unknown `unknown`; known are id, fill, max, queue, jobKey, jobKeyMode, priority, tz",
    );
    refused(
        "* * * * * t ?max=3&jobkey=k",
        "column 20: options: unknown `jobkey`, did you mean `jobKey`?; known are id, fill, max, queue, jobKey, jobKeyMode, \
         priority, tz",
    );
    refused("* * * * * t ?max=3&max=4", "column 20: options: `max` is there twice; leave one of them");
    refused(
        "* * * * * t ?",
        "column 14: options: there is none behind the `?`; write `?fill=1d`, or leave the `?` out",
    );
    for (option, words) in [
        ("max=0", "a whole number from 1 to 32767"),
        ("max=99999", "a whole number from 1 to 32767"),
        ("max=+3", "a whole number from 1 to 32767"),
        ("priority=32768", "a whole number from -32768 to 32767"),
        ("priority=-", "a whole number from -32768 to 32767"),
        ("jobKey=", "which the database refuses"),
        ("jobKey", "which the database refuses"),
        ("jobKey=%00", "no NUL"),
        ("jobKey=%ff", "not UTF-8"),
        ("jobKeyMode=unsafe_dedupe", "`replace` or `preserve_run_at`"),
        ("fill=1", "a period is written as"),
        ("fill=", "a period is written as"),
        ("fill=1.5h", "a period is written as"),
        ("fill=1é", "a period is written as"),
        ("fill=99999999999999999999999w", "at most 100 years"),
        ("fill=18446744073709551615w", "at most 100 years"),
        ("id=4a", "an identifier is a letter"),
        ("id=a:b", "an identifier is a letter"),
        ("queue=a.b", "the name of a queue"),
        ("tz=Europe/Belrin", "did you mean `Europe/Berlin`?"),
        ("tz=berlin", "did you mean `Europe/Berlin`?"),
        ("tz=", "no such time zone"),
        ("tz=../../etc/passwd", "no such time zone"),
        ("tz=Etc/Unknown", "no such time zone"),
    ] {
        let error = parse_line(&format!("* * * * * t ?{option}")).expect_err(option).to_string();
        assert!(error.contains(words), "{option}: {error}");
    }
}

#[test]
fn payloads_say_where_they_are_wrong() {
    let form = "it is one JSON5 object, as {to: \"all\", count: 3}";
    refused("* * * * * t {a: 1 b: 2}", &format!("column 19: payload: a comma is missing; {form}"));
    refused(
        "* * * * * t {é: Mo}",
        &format!("column 17: payload: a value is missing, or is text without quotes; {form}"),
    );
    refused("* * * * * t {a: {}", &format!("column 18: payload: it ends too early; {form}"));
    refused("* * * * * t {a: 1}}", &format!("column 19: payload: something stands behind its end; {form}"));
    refused(
        "* * * * * t {a: 1, a: 2}",
        "column 13: payload: the key `a` is there twice; it is one JSON5 object, as {to: \"all\", count: 3}",
    );
    refused(
        "* * * * * t {a: Infinity}",
        &format!("column 17: payload: JSON has no infinity and no NaN, and no numbers beyond 1.8e308; {form}"),
    );
    for number in ["18446744073709551616", "-9223372036854775809", "0x10000000000000000", &"9".repeat(50)] {
        refused(
            &format!("* * * * * t {{'a 99999999999999999999': {number}}}"),
            &format!(
                "column 40: payload: the number {number} is too large to be kept as it is written; write it in quotes"
            ),
        );
    }
    let deep = format!("* * * * * t {{a: {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let error = parse_line(&deep).expect_err("too deep").to_string();
    assert!(error.contains("objects and arrays are more than 120 deep"), "{error}");
}

#[test]
fn all_wrong_lines_are_told_at_once() {
    let error = parse_crontab("0 4 * * * a\r\n0 4 * * * a\n\n61 * * * * b\n# fine\n0 4 * * * c ?id=a\n* * * * * d {")
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 2, column 1: the identifier `a` is that of line 1 already; give one of them another with `?id=`\n\
         line 4, column 1: minute `61`: out of range; the minute goes from 0 to 59\n\
         line 6, column 1: the identifier `a` is that of line 1 already; give one of them another with `?id=`\n\
         line 7, column 13: payload: it does not end with `}`; nothing may stand behind it, neither options nor a comment"
    );
    let many = "wrong\n".repeat(10_000);
    let error = parse_crontab(&many).unwrap_err();
    assert_eq!(error.0.len(), 10_000);
    assert_eq!(error.to_string().lines().count(), 21);
    assert!(error.to_string().ends_with("and 9980 more"));
}

#[test]
fn long_lines_are_refused_and_never_printed_whole() {
    let long = format!("* * * * * t {{a: '{}'}}", "x".repeat(LONGEST_LINE));
    refused(&long, &format!("the line is longer than {LONGEST_LINE} bytes"));
    let fits = format!("* * * * * t {{a: '{}'}}", "x".repeat(LONGEST_LINE - 20));
    assert!(parse_line(&fits).is_ok());
    for long in [
        "1,".repeat(500_000),
        "x".repeat(1_000_000),
        format!("* * * * * {}", "t".repeat(1_000_000)),
        format!("* * * * * t ?{}", "u".repeat(1_000_000)),
        format!("* * * * * t ?tz={}", "u".repeat(1_000_000)),
        format!("* * * * * t ?id={}!", "u".repeat(1_000_000)),
        format!("* * * * * t {{a: {}}}", "9".repeat(1_000_000)),
    ] {
        let error = parse_line(&long).expect_err("wrong").to_string();
        assert!(error.len() < 400, "{error}");
    }
}

#[test]
fn the_documented_errors_are_those_that_are_printed() {
    let text = "\
0 4 * * * report
60 * * * * t
0 9 * * mon-fri t
0 9-17/3 * * * t
0 22-2 * * * t
@daily t
0 */5 * * * * t
* * * * * t ?max=3&jobkey=k
* * * * * t ?tz=Europe/Belrin
* * * * * t {a: 1 b: 2}
0 5 * * * report";
    let page = include_str!("../../docs/crontab.md");
    let documented =
        page.split("```text\n").nth(2).and_then(|block| block.split("\n```").next()).expect("the second block");
    assert_eq!(parse_crontab(text).unwrap_err().to_string(), documented);
}
