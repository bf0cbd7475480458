//! The commands that try a bus: `publish`, `dev`, and the source of FraiseQL's own file.

use wirehook::cli::Exit;

use super::{Bench, SETTINGS};

const BUSES: &str = "[[source]]\nname = \"bus\"\nkind = \"redis\"\nurl = \"redis://h\"\nchannels = [\"fraiseql.*\"]\n\
    [[source]]\nname = \"web\"\nkind = \"http\"\ntoken = { env = \"SHOP_SECRET\" }\n\
    [[endpoint]]\nname = \"shop\"\nurl = \"https://shop.example.com/hooks\"\nsecret = { env = \"NOT_SET\" }\n";

#[tokio::test]
async fn an_event_is_made_of_the_arguments_and_published_without_any_endpoints_secret() {
    let bench = Bench::new(BUSES);
    let arguments = "publish order.created --source bus --entity {\"id\":7} --tenant t --count 3";
    let objects = bench.objects(arguments, Exit::Success).await;
    assert_eq!(objects[0]["published"], 3);
    assert_eq!(objects[0]["destinations"][0], "fraiseql.order.created");
    let published = bench.parts.published.lock().unwrap();
    let event: serde_json::Value = serde_json::from_slice(&published[2].event.payload).unwrap();
    assert_eq!((&event["entity_id"], &event["tenant_id"]), (&"7".into(), &"t".into()));
}

#[tokio::test]
async fn a_bus_where_nobody_is_subscribed_is_warned_of() {
    let ended = Bench::new(BUSES).run("publish order.created --source bus").await;
    assert_eq!(ended.exit, Exit::Success);
    assert!(ended.err.starts_with("warning: nobody is subscribed: 1 event reached nobody"), "{}", ended.err);
    assert_eq!(ended.out, "1 event published to redis at redis://h, fraiseql.order.created\n");
}

#[tokio::test]
async fn a_publication_says_what_is_wrong_before_anything_goes_out() {
    let bench = Bench::new(BUSES);
    let check = async |arguments: &str, expected: &[&str]| {
        let ended = bench.run(arguments).await;
        assert_eq!((ended.exit, ended.out.as_str()), (Exit::Usage, ""), "{arguments}");
        for expected in expected {
            assert!(ended.err.contains(expected), "{arguments}: {}", ended.err);
        }
        assert!(bench.parts.published.lock().unwrap().is_empty(), "{arguments}");
    };
    check("publish order.created", &["several sources", "bus (redis), web (http)"]).await;
    check("publish order.created --source buz", &["no source `buz`", "bus (redis)"]).await;
    check("publish order.shipped --source bus", &["no file that is there", "created, updated, deleted, custom"]).await;
    check("publish order.created --source bus --entity {", &["--entity is not JSON"]).await;
    check("publish order.created --source bus --subject audit.x", &["does not match", "fraiseql.*"]).await;
    check("publish order.created --source web --subject a.b", &["says nothing to source `web`"]).await;
    let events = bench.folder.path().join("events.jsonl");
    std::fs::write(&events, "{\"a\": 1}\nnonsense\n").unwrap();
    let file = events.to_str().unwrap();
    check(&format!("publish {file} --source web"), &["not JSON", "events.jsonl:2", "--raw"]).await;
    std::fs::write(&events, "{\"a\": 1}\n").unwrap();
    check(&format!("publish {file} --source bus"), &["events.jsonl:1", "--subject"]).await;
    std::fs::write(&events, "\n").unwrap();
    check(&format!("publish {file} --source bus"), &["no event in"]).await;
    let bench = Bench::new(SETTINGS);
    let ended = bench.run("publish order.created").await;
    assert_eq!(ended.exit, Exit::Usage);
    assert!(ended.err.contains("reads standard input") && ended.err.contains("wirehook run <"), "{}", ended.err);
}

#[tokio::test]
async fn every_attempt_of_a_trial_is_a_line() {
    let bench = Bench::new("");
    let arguments = "dev --plugin a.wasm --source - --forward-to http://localhost:3000 --secret-env SHOP_SECRET";
    let ended = bench.run(arguments).await;
    assert_eq!(ended.exit, Exit::Success, "{}", ended.err);
    let lines: Vec<&str> = ended.out.lines().collect();
    assert_eq!(
        lines,
        [
            "ready for events",
            "200 orders → shop msg_1 attempt 1, 12 ms: delivered",
            "refused orders → shop msg_1 attempt 1, 12 ms: tried again in 250ms",
            "400 orders → shop msg_1 attempt 1, 12 ms: dead letter: status_4xx",
            "stopped, with 2 dead letters; what it made is removed",
        ]
    );
    let objects = bench.objects(arguments, Exit::Success).await;
    let outcomes: Vec<_> = objects.iter().filter_map(|object| object["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["delivered", "retrying", "dead"]);
    assert_eq!(objects[3]["reason"], "status_4xx");
}

#[tokio::test]
async fn fraiseqls_own_file_gives_a_source() {
    let endpoint =
        "[[endpoint]]\nname = \"shop\"\nurl = \"https://shop.example.com/hooks\"\nsecret = { env = \"SHOP_SECRET\" }\n";
    let mut bench = Bench::new(endpoint);
    bench.parts.plugins.pop();
    let file = bench.folder.path().join("fraiseql.toml");
    let observers = file.to_str().unwrap().to_owned();
    std::fs::write(&file, "[observers]\nbackend = \"nats\"\nnats_url = \"nats://u:s3cret@bus:4222\"\n").unwrap();
    let ended = bench.run(&format!("check --observers {observers}")).await;
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Success, ""));
    assert!(ended.out.contains("fraiseql  nats") && ended.out.ends_with("all is well\n"), "{}", ended.out);
    assert_eq!(bench.run(&format!("run --observers {observers}")).await.exit, Exit::Success);
    assert_eq!(bench.run("run").await.exit, Exit::Usage);
    let objects = bench.objects(&format!("config show --observers {observers}"), Exit::Success).await;
    let find = |key: &str| objects.iter().find(|object| object["key"] == key).unwrap_or_else(|| panic!("{key}"));
    assert_eq!(find("source.fraiseql.url")["value"], "nats://bus:4222");
    assert_eq!(find("source.fraiseql.password")["value"], "<redacted>");
    let ended = bench.run(&format!("publish order.created --observers {observers}")).await;
    assert!(ended.out.contains("nats at nats://bus:4222, fraiseql.order.created"), "{}{}", ended.out, ended.err);
}

#[tokio::test]
async fn what_is_wrong_in_both_files_is_told_together() {
    let bench = Bench::new("[store]\npaht = \"x\"\n");
    let file = bench.folder.path().join("fraiseql.toml");
    std::fs::write(&file, "[observers]\nbackend = \"kafka\"\n").unwrap();
    let observers = file.to_str().unwrap();
    let ended = bench.run(&format!("run --observers {observers}")).await;
    assert_eq!(ended.exit, Exit::Usage);
    assert!(
        ended.err.contains("`paht`") && ended.err.contains("known backends: nats, postgres, redis"),
        "{}",
        ended.err
    );
    let ended = Bench::new("").run("check --observers /nowhere/fraiseql.toml").await;
    assert_eq!(ended.exit, Exit::Usage);
    assert!(ended.err.contains("/nowhere/fraiseql.toml named by --observers can't be read"), "{}", ended.err);
    let taken = Bench::new("[[source]]\nname = \"fraiseql\"\nkind = \"stdin\"\n");
    std::fs::write(&file, "[observers]\nbackend = \"redis\"\nredis_url = \"redis://h\"\n").unwrap();
    let ended = taken.run(&format!("run --observers {observers}")).await;
    assert!(ended.err.contains("adds a source named `fraiseql`"), "{}", ended.err);
}
