use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::{any, prop_assert, proptest};
use proptest::test_runner::Config;
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::protocol::{LONGEST_ANSWER, LONGEST_REQUEST};
use super::{AskError, Listener, LogLevel, LogLevels, Reply, Request, Serve, WantedLevel, ask};

/// Longer than anything takes that is to come to an end.
const SOON: Duration = Duration::from_secs(5);

/// Answers with what it was asked; is never done with leaving.
#[derive(Clone)]
struct Echo;

impl Serve for Echo {
    async fn serve(&self, request: Request) -> Reply {
        match request {
            Request::Leave => std::future::pending().await,
            Request::Reload => Reply::refusal("no".to_owned()),
            Request::Release => Reply::answer(&"x".repeat(LONGEST_ANSWER)),
            request => Reply::answer(&request),
        }
    }
}

/// A socket at which [`Echo`] answers.
struct Served {
    path: PathBuf,
    _directory: TempDir,
}

impl Served {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/x.sock");
        tokio::spawn(Listener::open(&path).unwrap().run(Echo));
        Self { path, _directory: directory }
    }

    /// What is answered to `bytes`, and nothing more of them.
    async fn send(&self, bytes: &[u8]) -> Value {
        let (path, bytes) = (self.path.clone(), bytes.to_vec());
        let answer = spawn_blocking(move || {
            let mut stream = UnixStream::connect(path).unwrap();
            // The other end may have read enough.
            let _ = stream.write_all(&bytes);
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        });
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert!(answer.ends_with('\n') && answer.lines().count() == 1, "{answer:?}");
        serde_json::from_str(&answer).unwrap()
    }
}

#[tokio::test]
async fn a_line_is_answered_by_a_line() {
    let served = Served::start();
    let answer = served.send(b"{\"verb\":\"log-level\",\"level\":\"debug\"}\n").await;
    assert_eq!(answer, json!({"version": 1, "answer": {"verb": "log-level", "level": "debug"}}));
    let answer = served.send(b"{\"verb\":\"log-level\",\"level\":\"configured\"}\n").await;
    assert_eq!(answer, json!({"version": 1, "answer": {"verb": "log-level", "level": "configured"}}));
    let answer = served.send(b"{\"verb\":\"reload\"}\n").await;
    assert_eq!(answer, json!({"version": 1, "error": "no"}));
}

#[tokio::test]
async fn what_is_asked_comes_back_to_who_asks() {
    let served = Served::start();
    let request = Request::LogLevel { level: Some(WantedLevel::Configured) };
    let told = ask::<Request>(&served.path, request).await.unwrap();
    assert_eq!((told.answer, told.pid), (request, Some(std::process::id())));
    let error = ask::<Request>(&served.path, Request::Reload).await.unwrap_err();
    assert!(matches!(&error, AskError::Refused(reason) if reason == "no"), "{error}");
}

#[test]
fn levels_are_read_as_they_are_written() {
    for name in WantedLevel::names() {
        let level: WantedLevel = name.parse().unwrap();
        assert_eq!(serde_json::to_value(level).unwrap(), name);
    }
    let unknown = "loud".parse::<WantedLevel>().unwrap_err().to_string();
    assert!(WantedLevel::names().all(|name| unknown.contains(name)), "{unknown}");
}

#[rstest]
#[case::no_json(b"status\n".as_slice())]
#[case::empty_line(b"\n")]
#[case::unknown_verb(b"{\"verb\":\"frobnicate\"}\n")]
#[case::unknown_level(b"{\"verb\":\"log-level\",\"level\":\"loud\"}\n")]
#[case::misspelt_member(b"{\"verb\":\"log-level\",\"levle\":\"debug\"}\n")]
#[case::no_text(b"\xff\xfe\x00\n")]
#[case::http(b"GET / HTTP/1.1\r\n\r\n")]
#[tokio::test]
async fn junk_is_told_so(#[case] junk: &[u8]) {
    let served = Served::start();
    let answer = served.send(junk).await;
    assert!(answer["error"].as_str().unwrap().contains("cannot be understood"), "{answer}");
    ask::<Request>(&served.path, Request::Status).await.unwrap();
}

#[tokio::test]
async fn too_much_is_not_read() {
    let served = Served::start();
    let answer = served.send(&vec![b' '; 64 * LONGEST_REQUEST]).await;
    assert!(answer["error"].as_str().unwrap().contains("longer than 4096 bytes"), "{answer}");
    // Behind the line nothing is read.
    let mut request = b"{\"verb\":\"status\"}\n".to_vec();
    request.extend(vec![b'x'; 1000]);
    assert_eq!(served.send(&request).await["answer"]["verb"], "status");
}

#[tokio::test]
async fn too_much_is_not_answered() {
    let served = Served::start();
    let answer = served.send(b"{\"verb\":\"release\"}\n").await;
    assert!(answer["error"].as_str().unwrap().contains("too long"), "{answer}");
}

#[tokio::test]
async fn who_says_nothing_is_given_up() {
    let served = Served::start();
    let since = Instant::now();
    let answer = served.send(b"{\"verb\"").await;
    assert!(answer["error"].as_str().unwrap().contains("no request came within 2s"), "{answer}");
    assert!(since.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn those_who_say_nothing_keep_nobody_waiting() {
    let served = Served::start();
    let silent: Vec<UnixStream> =
        (0..super::server::CONNECTIONS).map(|_| UnixStream::connect(&served.path).unwrap()).collect();
    ask::<Request>(&served.path, Request::Status).await.unwrap();
    drop(silent);
}

#[tokio::test]
async fn everybody_of_a_crowd_is_answered() {
    let served = Served::start();
    let asking: Vec<_> = (0..1000)
        .map(|_| {
            let path = served.path.clone();
            tokio::spawn(async move { ask::<Request>(&path, Request::Status).await.unwrap() })
        })
        .collect();
    for asking in asking {
        asking.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_never_done_is_told_so() {
    let served = Served::start();
    let error = ask::<Value>(&served.path, Request::Leave).await.unwrap_err().to_string();
    assert!(error.contains("not done within 30s"), "{error}");
}

#[tokio::test]
async fn the_end_of_an_answer_is_heard() {
    #[derive(Clone)]
    struct Last(std::sync::Arc<std::sync::Mutex<Option<oneshot::Sender<std::convert::Infallible>>>>);
    impl Serve for Last {
        async fn serve(&self, _: Request) -> Reply {
            let until_written = self.0.lock().unwrap().take().unwrap();
            Reply::answer(&LogLevels { level: LogLevel::Info, configured: LogLevel::Info })
                .holding(until_written)
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let (until_written, written) = oneshot::channel();
    let last = Last(std::sync::Arc::new(std::sync::Mutex::new(Some(until_written))));
    let serving = tokio::spawn(Listener::open(&path).unwrap().run(last));
    let asking = tokio::spawn(async move { ask::<LogLevels>(&path, Request::Leave).await });
    timeout(SOON, written).await.unwrap().unwrap_err();
    serving.abort();
    asking.await.unwrap().unwrap();
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("x.sock")
}

#[tokio::test]
async fn it_is_its_owners_alone_and_goes_with_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket(&directory);
    let listener = Listener::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(listener);
    assert!(!path.exists());
    let error = ask::<Value>(&path, Request::Status).await.unwrap_err();
    assert!(matches!(error, AskError::Nobody { .. }), "{error}");
}

#[tokio::test]
async fn one_that_was_left_behind_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket(&directory);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = ask::<Value>(&path, Request::Status).await.unwrap_err();
    assert!(matches!(error, AskError::Nobody { .. }), "{error}");
    let first = Listener::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let second = Listener::open(&path).unwrap();
    drop(first);
    assert!(path.exists(), "it is the second one's by now");
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn what_is_no_socket_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket(&directory);
    fs::write(&path, "mine").unwrap();
    let error = Listener::open(&path).unwrap_err();
    assert!(error.source.to_string().contains("no socket"), "{}", error.source);
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[tokio::test]
async fn another_program_behind_it_is_no_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket(&directory);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for answer in ["hello\n", "{\"version\":2,\"answer\":{\"verb\":\"status\"}}\n"] {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    for _ in 0..2 {
        let error = ask::<Request>(&path, Request::Status).await.unwrap_err();
        assert!(matches!(error, AskError::Foreign { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_daemon_that_ends_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket(&directory);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for reads in [true, false] {
            let (stream, _) = listener.accept().unwrap();
            if reads {
                BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            }
        }
    });
    for _ in 0..2 {
        let error = ask::<Request>(&path, Request::Status).await.unwrap_err();
        assert!(matches!(error, AskError::Ended { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_daemon_that_is_stuck_is_told_with_its_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket(&directory);
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = ask::<Request>(&path, Request::Status).await.unwrap_err();
    let own = std::process::id();
    assert!(matches!(error, AskError::Silent { pid: Some(pid), .. } if pid == own), "{error:?}");
}

proptest! {
    #![proptest_config(Config::with_cases(64))]
    #[test]
    fn whatever_is_sent_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async {
            let served = Served::start();
            served.send(&[bytes.as_slice(), b"\n"].concat()).await
        });
        prop_assert!(answer["error"].is_string(), "{answer}");
    }
}
