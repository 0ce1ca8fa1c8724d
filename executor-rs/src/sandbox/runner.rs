//! Runs one job from the executor's side: workspace, launcher, streams, report.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{watch, Notify};

use super::capture::drain;
use super::spec::{Report, Spec};
use super::workspace::Workspace;
use super::{Sandbox, SandboxError, CONTROL, SUBCOMMAND};
use crate::job::{Captured, Finished, Job, Tier};

/// Beyond the step's own wall time: building and taking down. Only a broken launcher needs it.
const MARGIN: Duration = Duration::from_secs(25);

/// Runs the job to its end, or until `stop` turns true (its sender gone counts as never).
pub async fn run(
    sandbox: &Sandbox,
    job: &Job,
    mut stop: watch::Receiver<bool>,
) -> Result<Finished, SandboxError> {
    let workspace = Workspace::create(&sandbox.workspace_dir, &job.files).map_err(|source| {
        SandboxError::internal(
            format!("make a workspace in {}", sandbox.workspace_dir.display()),
            source,
        )
    })?;
    let spec = spec(sandbox, job, &workspace);
    let began = Instant::now();
    let (mut launcher, control) = start(&sandbox.launcher, job.stdin.is_some())?;
    let (from, mut to) = control.into_split();
    let mut line = serde_json::to_vec(&spec)
        .map_err(|error| SandboxError::internal("write the spec", error.into()))?;
    line.push(b'\n');
    to.write_all(&line)
        .await
        .map_err(|error| SandboxError::internal("hand the spec over", error))?;

    let flood = Notify::new();
    let limit = job.limits.output_bytes;
    let outputs = async {
        let (stdin, stdout, stderr) = (
            launcher.stdin.take(),
            launcher.stdout.take(),
            launcher.stderr.take(),
        );
        let feed = async {
            if let (Some(mut pipe), Some(text)) = (stdin, &job.stdin) {
                // A step that does not read its input may close it.
                let _ = pipe.write_all(text.as_bytes()).await;
            }
        };
        let out = async { read(stdout, limit, &flood).await };
        let err = async { read(stderr, limit, &flood).await };
        let ((), out, err) = tokio::join!(feed, out, err);
        (out, err)
    };
    let mut flooded = false;
    let report = async {
        let mut lines = BufReader::new(from).lines();
        let deadline = tokio::time::sleep(Duration::from_secs(job.limits.wall_s) + MARGIN);
        tokio::pin!(deadline);
        // Closing our side of the socket is the order to kill.
        let mut to = Some(to);
        loop {
            tokio::select! {
                line = lines.next_line() => break line.ok().flatten(),
                () = flood.notified(), if to.is_some() => { flooded = true; to = None; }
                () = stopped(&mut stop), if to.is_some() => to = None,
                () = &mut deadline => break None,
            }
        }
    };
    // The pipes end when every process of the step has; only a step that hides from its killer could keep them.
    let (report, captured) = {
        tokio::pin!(outputs);
        tokio::pin!(report);
        let mut captured = None;
        let report = loop {
            tokio::select! {
                found = &mut outputs, if captured.is_none() => captured = Some(found),
                report = &mut report => break report,
            }
        };
        if captured.is_none() {
            captured = tokio::time::timeout(Duration::from_secs(5), &mut outputs)
                .await
                .ok();
        }
        (report, captured)
    };
    end(&mut launcher).await;
    let report = report.ok_or_else(|| SandboxError::Internal {
        what: "the sandbox's launcher ended without a report".to_owned(),
        source: std::io::ErrorKind::UnexpectedEof.into(),
    })?;
    let report: Report = serde_json::from_str(&report)
        .map_err(|error| SandboxError::internal("read the launcher's report", error.into()))?;
    if let Some(why) = report.refused {
        return Err(SandboxError::Refused(why));
    }
    let (stdout, stderr) = captured.unwrap_or_default();
    Ok(Finished {
        tier: spec.tier,
        features: report.features,
        cause: report.cause,
        code: report.code,
        signal: report.signal,
        flooded,
        stdout,
        stderr,
        duration: began.elapsed(),
    })
}

async fn read(
    from: Option<impl tokio::io::AsyncRead + Unpin>,
    limit: u64,
    flood: &Notify,
) -> Captured {
    match from {
        Some(from) => drain(from, limit, || flood.notify_one()).await,
        None => Captured::default(),
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The launcher ends by itself right after its report; a broken one is killed.
async fn end(launcher: &mut Child) {
    if tokio::time::timeout(Duration::from_secs(2), launcher.wait())
        .await
        .is_err()
    {
        // It may end between the two lines; then there is nothing to kill.
        let _ = launcher.kill().await;
    }
}

fn start(launcher: &Path, with_stdin: bool) -> Result<(Child, UnixStream), SandboxError> {
    let failed = |source| {
        SandboxError::internal(format!("start the launcher {}", launcher.display()), source)
    };
    let (ours, theirs) = StdStream::pair().map_err(failed)?;
    let given = theirs.as_raw_fd();
    let mut command = Command::new(launcher);
    command
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(if with_stdin {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec; only async-signal-safe calls on a descriptor that the closure's owner keeps open.
    unsafe {
        command.pre_exec(move || {
            let result = if given == CONTROL {
                libc::fcntl(given, libc::F_SETFD, 0)
            } else {
                libc::dup2(given, CONTROL)
            };
            if result < 0 {
                Err(std::io::Error::last_os_error())
            } else {
                Ok(())
            }
        });
    }
    let child = command.spawn().map_err(failed)?;
    drop(theirs);
    ours.set_nonblocking(true).map_err(failed)?;
    Ok((child, UnixStream::from_std(ours).map_err(failed)?))
}

fn spec(sandbox: &Sandbox, job: &Job, workspace: &Workspace) -> Spec {
    let home = match sandbox.tier {
        Tier::Namespaces => "/work".to_owned(),
        Tier::Landlock => workspace.work().display().to_string(),
    };
    let mut env = vec![
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("TMPDIR".to_owned(), format!("{home}/tmp")),
        ("HOME".to_owned(), home),
    ];
    env.extend_from_slice(&job.env);
    Spec {
        tier: sandbox.tier,
        workspace: workspace.work(),
        root: workspace.root(),
        read_only: job.read_only.clone(),
        program: job.program.clone(),
        args: job.args.clone(),
        env,
        limits: job.limits,
    }
}
