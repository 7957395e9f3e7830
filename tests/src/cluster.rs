//! Real servers as processes: started, killed, paused, restarted, each wait with a bound.
//!
//! A [`Cluster`] is a folder with a data directory a member and the example key-value server, in C or in Python, on
//! free loopback ports. It knows the command line that the examples share and the lines that they print; it knows
//! nothing of what they store. Everything here panics with what the servers said last: a test has nothing better to
//! do with a cluster that does not come up.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::resp::{Client, Connection, Outcome, Value};

/// The longest that anything which must happen may take.
pub const BOUND: Duration = Duration::from_secs(60);

/// How long a poll waits before it looks again.
const POLL_PAUSE: Duration = Duration::from_millis(10);

/// Which program a member runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// The example in C.
    C,
    /// The example in Python.
    Python,
}

impl Program {
    /// The command, from `RAFT_KV_C` or `RAFT_KV_PYTHON` where set, else where `make` puts it.
    fn command(self) -> Vec<String> {
        let (variable, usual) = match self {
            Self::C => ("RAFT_KV_C", vec![in_tree("build/kv-c")]),
            Self::Python => ("RAFT_KV_PYTHON", vec![in_tree(".venv/bin/python"), in_tree("examples/kv-python/kv.py")]),
        };
        let command = match std::env::var(variable) {
            Ok(text) => text.split_whitespace().map(str::to_owned).collect(),
            Err(_) => usual,
        };
        assert!(Path::new(&command[0]).exists(), "{} is missing: run `make examples` first", command[0]);
        command
    }
}

/// A path of the source tree.
pub fn in_tree(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in a workspace");
    root.join(path).to_string_lossy().into_owned()
}

/// How a cluster is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// One initial member each, with ids from 1.
    pub programs: Vec<Program>,
    /// `--config KEY=VALUE` of every server.
    pub settings: Vec<(&'static str, String)>,
    /// A command that each server is run under; `{id}` in it stands for the member's id, `{folder}` for the cluster's.
    pub wrapper: Vec<String>,
}

impl Setup {
    /// Members with election timeouts of a second, for tests that do not measure failover.
    pub fn new(programs: &[Program]) -> Self {
        let settings = vec![("election_timeout_ms", "1000".to_owned())];
        Self { programs: programs.to_vec(), settings, wrapper: Vec::new() }
    }

    /// Sets `key` on every server.
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.settings.retain(|(present, _)| *present != key);
        self.settings.push((key, value.to_string()));
        self
    }
}

/// A running group of servers. Dropping it kills them.
#[derive(Debug)]
pub struct Cluster {
    folder: Option<TempDir>,
    name: String,
    setup: Setup,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    id: u64,
    program: Program,
    /// It joins the group that runs; else it forms it.
    joins: bool,
    /// It left the group and its process ended.
    is_gone: bool,
    data: PathBuf,
    raft: SocketAddr,
    resp: SocketAddr,
    /// `--config KEY=VALUE` of this server alone.
    settings: Vec<(String, String)>,
    running: Option<Running>,
    /// Everything that any process of this member printed.
    output: Arc<Mutex<Vec<String>>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    lines: Receiver<String>,
}

/// What a server says of itself, as `RAFT.STATUS` answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    fields: Vec<(String, String)>,
}

impl Status {
    fn of(value: &Value) -> Option<Self> {
        let mut fields = Vec::new();
        match value {
            Value::Array(items) => {
                for pair in items.chunks_exact(2) {
                    let text = match &pair[1] {
                        Value::Integer(number) => number.to_string(),
                        Value::Nil => String::new(),
                        other => other.text()?.to_owned(),
                    };
                    fields.push((pair[0].text()?.to_owned(), text));
                }
            }
            other => {
                for line in other.text()?.lines() {
                    if let Some((key, value)) = line.split_once(':') {
                        fields.push((key.trim().to_owned(), value.trim().to_owned()));
                    }
                }
            }
        }
        Some(Self { fields })
    }

    /// A field, by its name.
    ///
    /// # Panics
    /// If there is none: the test asks for something that the server does not say.
    pub fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_else(|| panic!("no `{name}` in {self:?}"))
    }

    /// A field that is a number.
    pub fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap_or_else(|_| panic!("`{name}` is no number in {self:?}"))
    }
}

impl Cluster {
    /// Makes the folders and finds the ports; starts nothing.
    pub fn prepare(setup: Setup) -> Self {
        let folder = tempfile::Builder::new().prefix("raft-cluster-").tempdir().expect("a temporary folder");
        let members = (1..=setup.programs.len() as u64)
            .zip(&setup.programs)
            .map(|(id, &program)| Member::new(id, program, false, folder.path()))
            .collect();
        Self { folder: Some(folder), name: "test".to_owned(), setup, members }
    }

    /// Prepares and starts all members, and waits until each is ready and one leads.
    pub fn start(setup: Setup) -> Self {
        let mut cluster = Self::prepare(setup);
        for id in cluster.ids() {
            cluster.launch(id);
        }
        for id in cluster.ids() {
            cluster.wait_ready(id);
        }
        cluster.leader();
        cluster
    }

    /// Makes room for one more server, which joins the group when it is launched; its id.
    pub fn prepare_joiner(&mut self, program: Program) -> u64 {
        let id = self.members.iter().map(|member| member.id).max().unwrap_or(0) + 1;
        self.members.push(Member::new(id, program, true, self.folder()));
        id
    }

    /// Starts one more server, has the group add it, and waits until that is done; its id.
    #[track_caller]
    pub fn add(&mut self, program: Program) -> u64 {
        let id = self.prepare_joiner(program);
        self.restart(id);
        let (raft, resp) = (self.raft_address(id).to_string(), self.client_address(id).to_string());
        self.operate(&["RAFT.ADD", &id.to_string(), &raft, &resp], |members| members.contains(&id));
        id
    }

    /// Has the group remove a server, and waits until that is done and its process has ended by itself.
    #[track_caller]
    pub fn remove(&mut self, id: u64) {
        self.operate(&["RAFT.REMOVE", &id.to_string()], |members| !members.contains(&id));
        let status = self.wait_exit(id);
        assert!(status.success(), "server {id} ended with {status} when it was removed");
        self.member_mut(id).is_gone = true;
    }

    /// Asks the leader for a change of members until it is done: again where nothing came of it, and where nobody knows,
    /// looks whether the members are as they should be.
    #[track_caller]
    fn operate(&self, words: &[&str], is_done: impl Fn(&[u64]) -> bool) {
        let mut client = Client::new(self.client_addresses(), 0);
        poll(&format!("{words:?} to be done"), || match client.call(words) {
            Outcome::Done(_) => Some(()),
            Outcome::NotApplied(_) | Outcome::Unknown(_) => self.member_ids().filter(|ids| is_done(ids)).map(drop),
            Outcome::Refused(why) => {
                let done = self.member_ids().is_some_and(|ids| is_done(&ids));
                assert!(done, "{words:?} was refused: {why}");
                Some(())
            }
        });
    }

    /// The members as the leader has them, once no change is in progress; `None` where nobody tells.
    pub fn member_ids(&self) -> Option<Vec<u64>> {
        let statuses = self.ids().into_iter().filter_map(|id| self.status(id));
        let leader =
            statuses.filter(|status| status.field("role") == "leader").max_by_key(|status| status.number("term"))?;
        let ids = leader.field("members").split(' ').filter_map(|member| member.split('=').next()?.parse().ok());
        (leader.field("change") == "none").then(|| ids.collect())
    }

    /// The ids of all servers that are not gone.
    pub fn ids(&self) -> Vec<u64> {
        self.members.iter().filter(|member| !member.is_gone).map(|member| member.id).collect()
    }

    /// The client addresses of all servers that are not gone, in order of id.
    pub fn client_addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().filter(|member| !member.is_gone).map(|member| member.resp).collect()
    }

    /// The client address of one member.
    pub fn client_address(&self, id: u64) -> SocketAddr {
        self.member(id).resp
    }

    /// The address where a member's peers dial it.
    pub fn raft_address(&self, id: u64) -> SocketAddr {
        self.member(id).raft
    }

    /// The data directory of one member.
    pub fn data(&self, id: u64) -> &Path {
        &self.member(id).data
    }

    /// The folder of the whole cluster.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("present until dropped").path()
    }

    /// Whether the member's process was started and not yet seen to end.
    pub fn is_running(&self, id: u64) -> bool {
        self.member(id).running.is_some()
    }

    fn member(&self, id: u64) -> &Member {
        self.members.iter().find(|member| member.id == id).expect("a member's id")
    }

    fn member_mut(&mut self, id: u64) -> &mut Member {
        self.members.iter_mut().find(|member| member.id == id).expect("a member's id")
    }

    /// The arguments that name all initial members, as every one of them must be given them.
    pub fn member_arguments(&self) -> Vec<String> {
        let name = |member: &Member| format!("{}={}/{}", member.id, member.raft, member.resp);
        let initial = self.members.iter().filter(|member| !member.joins);
        initial.flat_map(|member| ["--member".to_owned(), name(member)]).collect()
    }

    /// The arguments that name some members of the group that runs, as a server that joins is given them.
    pub fn join_arguments(&self, id: u64) -> Vec<String> {
        let others = self.members.iter().filter(|member| member.id != id && !member.is_gone);
        others.flat_map(|member| ["--join".to_owned(), member.raft.to_string()]).collect()
    }

    /// Sets `key` on one server, from its next start on.
    pub fn configure(&mut self, id: u64, key: &str, value: impl ToString) {
        self.member_mut(id).settings.push((key.to_owned(), value.to_string()));
    }

    /// Starts a member's process, without waiting.
    pub fn launch(&mut self, id: u64) {
        let members = if self.member(id).joins { self.join_arguments(id) } else { self.member_arguments() };
        self.launch_with(id, &members);
    }

    /// Starts a member's process with these arguments in place of the member list.
    pub fn launch_with(&mut self, id: u64, members: &[String]) {
        let program = self.member(id).program;
        let folder = self.folder().to_string_lossy().into_owned();
        let mut words: Vec<String> = self.setup.wrapper.clone();
        for word in &mut words {
            *word = word.replace("{id}", &id.to_string()).replace("{folder}", &folder);
        }
        words.extend(program.command());
        let (name, settings) = (self.name.clone(), self.setup.settings.clone());
        let member = self.member_mut(id);
        assert!(member.running.is_none(), "server {id} runs already");
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.args(["--cluster", &name, "--id", &id.to_string()]);
        command.arg("--data").arg(&member.data);
        command.args(["--raft", &member.raft.to_string(), "--resp", &member.resp.to_string()]);
        command.args(members);
        let own = member.settings.iter().map(|(key, value)| (key.as_str(), value));
        for (key, value) in settings.iter().map(|(key, value)| (*key, value)).chain(own) {
            command.args(["--config", &format!("{key}={value}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {words:?}: {error}"));
        let (sender, lines) = channel();
        let out = child.stdout.take().expect("piped");
        let err = child.stderr.take().expect("piped");
        let output = Arc::clone(&member.output);
        remember(&output, &format!("--- started as process {}", child.id()));
        std::thread::spawn({
            let output = Arc::clone(&output);
            move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    remember(&output, &line);
                    let _ = sender.send(line); // Nobody may be waiting any more.
                }
            }
        });
        std::thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                remember(&output, &format!("! {line}"));
            }
        });
        member.running = Some(Running { child, lines });
    }

    /// Starts a member's process and waits until it is ready.
    pub fn restart(&mut self, id: u64) {
        self.launch(id);
        self.wait_ready(id);
    }

    /// Waits for the line that says that a server is ready.
    #[track_caller]
    pub fn wait_ready(&mut self, id: u64) {
        self.wait_line(id, "its ready line", |line| line.contains("ready"));
    }

    /// Waits for a line of the server's output that fits.
    #[track_caller]
    pub fn wait_line(&mut self, id: u64, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + BOUND;
        loop {
            let running = self.member_mut(id).running.as_mut().expect("a running server");
            match running.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if fits(&line) => return line,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("server {id} did not print {what} in {BOUND:?}"),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.wait_exit(id);
                    panic!("server {id} ended ({status}) before it printed {what}");
                }
            }
        }
    }

    /// Kills a server with SIGKILL, as the out-of-memory killer would, and waits until it is gone.
    pub fn kill(&mut self, id: u64) {
        self.signal(id, Signal::KILL);
        self.wait_exit(id);
    }

    /// Asks a server to end with SIGTERM, and holds it to ending with 0.
    pub fn terminate(&mut self, id: u64) {
        self.signal(id, Signal::TERM);
        let status = self.wait_exit(id);
        assert!(status.success(), "server {id} ended with {status} on SIGTERM");
    }

    /// Sends a signal to a server.
    pub fn signal(&mut self, id: u64, signal: Signal) {
        let running = self.member_mut(id).running.as_ref().expect("a running server");
        kill_process(Pid::from_child(&running.child), signal).expect("our child");
    }

    /// The number of a server's process.
    pub fn process(&self, id: u64) -> u32 {
        self.member(id).running.as_ref().expect("a running server").child.id()
    }

    /// Waits until a server has ended.
    #[track_caller]
    pub fn wait_exit(&mut self, id: u64) -> ExitStatus {
        let member = self.member_mut(id);
        let running = member.running.as_mut().expect("a running server");
        let status = poll(&format!("server {id} to end"), || running.child.try_wait().expect("our child"));
        remember(&member.output, &format!("--- ended: {status}"));
        member.running = None;
        status
    }

    /// What a server printed so far, on both streams, over all its starts; lines of standard error begin with `! `.
    pub fn output(&self, id: u64) -> String {
        self.member(id).output.lock().expect("no panic while held").join("\n")
    }

    /// What a server says of itself; `None` while it does not answer.
    pub fn status(&self, id: u64) -> Option<Status> {
        let mut connection = Connection::open(self.member(id).resp).ok()?;
        Status::of(&connection.call(&["RAFT.STATUS"]).ok()?)
    }

    /// Waits until one server leads, is followed by all that run, and can answer a read; its id.
    #[track_caller]
    pub fn leader(&self) -> u64 {
        poll("a leader that all running servers follow", || {
            let running: Vec<u64> = self.ids().into_iter().filter(|&id| self.is_running(id)).collect();
            let statuses: Vec<Status> = running.iter().map(|&id| self.status(id)).collect::<Option<_>>()?;
            let at = statuses.iter().position(|status| status.field("role") == "leader")?;
            let leader = running[at];
            let agreed = |status: &Status| {
                status.field("leader") == leader.to_string() && status.field("term") == statuses[at].field("term")
            };
            let reads = || {
                let answer = Connection::open(self.client_address(leader)).ok()?.call(&["GET", "no-such-key"]).ok()?;
                (!matches!(answer, Value::Error(_))).then_some(leader)
            };
            statuses.iter().all(agreed).then(reads)?
        })
    }

    /// Waits until all servers have applied the same index and hold the same state; that index and digest.
    #[track_caller]
    pub fn wait_equal(&self) -> (u64, String) {
        wait_for(|| {
            let statuses: Vec<Status> = self.ids().iter().filter_map(|&id| self.status(id)).collect();
            let states: Vec<(u64, &str)> =
                statuses.iter().map(|status| (status.number("applied"), status.field("digest"))).collect();
            let is_equal = states.len() == self.ids().len() && states.iter().all(|state| *state == states[0]);
            if is_equal {
                Ok((states[0].0, states[0].1.to_owned()))
            } else {
                Err(format!("equal replicas: {statuses:#?}"))
            }
        })
    }

    /// Ends all servers that run with SIGTERM.
    pub fn terminate_all(&mut self) {
        for id in self.ids() {
            if self.is_running(id) {
                self.terminate(id);
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(running) = &mut member.running {
                let _ = running.child.kill(); // It may have ended by itself.
                let _ = running.child.wait();
            }
        }
        if std::thread::panicking() {
            let mut report = String::new();
            for member in &self.members {
                let output = member.output.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let tail = output.iter().skip(output.len().saturating_sub(30));
                let _ = writeln!(report, "=== server {}, its last lines:", member.id);
                tail.for_each(|line| report.push_str(&format!("    {line}\n")));
            }
            if let Some(folder) = self.folder.take() {
                let _ = writeln!(report, "=== left in place: {}", folder.keep().display());
            }
            let _ = std::io::stderr().write_all(report.as_bytes());
        }
    }
}

impl Member {
    fn new(id: u64, program: Program, joins: bool, folder: &Path) -> Self {
        Self {
            id,
            program,
            joins,
            is_gone: false,
            data: folder.join(format!("data-{id}")),
            raft: free_address(),
            resp: free_address(),
            settings: Vec::new(),
            running: None,
            output: Arc::default(),
        }
    }
}

fn remember(output: &Mutex<Vec<String>>, line: &str) {
    output.lock().expect("no panic while held").push(line.to_owned());
}

/// Asks until there is an answer, for at most [`BOUND`].
#[track_caller]
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    wait_for(|| ask().ok_or_else(|| what.to_owned()))
}

/// Asks until there is an answer, for at most [`BOUND`]; then says what the last question was told instead.
#[track_caller]
fn wait_for<T>(mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(missing) => assert!(Instant::now() < deadline, "waited {BOUND:?} for {missing}"),
        }
        pause();
    }
}

/// Between two looks at a process there is nothing to wait for but time.
pub fn pause() {
    std::thread::sleep(POLL_PAUSE);
}

/// A loopback address whose port nobody has: below the range that the system gives to outgoing connections, or one of
/// those could take the port of a server that is down.
fn free_address() -> SocketAddr {
    for _ in 0..10_000 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..32_000)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port from 10000 to 32000")
}
