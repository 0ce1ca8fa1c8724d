//! The step's file tree: system folders read-only, a few files of /etc, five devices, own /proc and /tmp, and /work.

use std::os::unix::fs::{chown, symlink, MetadataExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::spec::Spec;
use super::syscall::{check, is_real_dir, text, Setup, SetupError};

const SYSTEM: [&str; 8] = [
    "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix",
];
/// What the dynamic linker and Debian's links need; nothing with names of users or hosts.
const ETC: [&str; 5] = [
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "localtime",
];
/// Name inside, name on the host. `full` reads like `zero`, but cannot be mapped as shared memory that nobody counts.
const DEVICES: [(&str, &str); 5] = [
    ("null", "null"),
    ("zero", "full"),
    ("full", "full"),
    ("random", "random"),
    ("urandom", "urandom"),
];
/// Bytes of all that a step keeps in its folder, which is in memory.
const WORK_LIMITS: &str = "size=256m,nr_inodes=16384";
const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Builds the tree on `spec.root` and makes it the root. Says whether /proc is there.
pub fn enter(spec: &Spec) -> Setup<bool> {
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change("/", private).map_err(|error| SetupError::new("mount /", error))?;
    let root = spec.root.as_path();
    mount("tmpfs", root, SAFE, "mode=755,size=1m")?;
    for name in SYSTEM {
        system_dir(root, name)?;
    }
    etc(root)?;
    devices(root)?;
    let tmp = root.join("tmp");
    make_dir(&tmp)?;
    mount("tmpfs", &tmp, SAFE, "mode=1777,size=64m,nr_inodes=4096")?;
    work(&spec.workspace, &root.join("work"))?;
    // After /tmp and /work: an interpreter may lie below a folder of that name and must not be covered.
    for prefix in &spec.read_only {
        let target = inside(root, prefix);
        make_dir(&target)?;
        bind_read_only(prefix, &target)?;
    }
    let proc = root.join("proc");
    make_dir(&proc)?;
    // Refused where the host's own /proc is masked (containers); the step then has none.
    let has_proc = mount("proc", &proc, SAFE | MountFlags::NOEXEC, "").is_ok();
    pivot(root)?;
    restrict(Path::new("/"), libc::MOUNT_ATTR_RDONLY, false)?;
    Ok(has_proc)
}

/// The step's own folder, with the files it was given: bounded, and gone with the last process whatever is in it.
fn work(given: &Path, target: &Path) -> Setup<()> {
    let failed = |error| SetupError::new("fill /work", error);
    let owner = given.metadata().map_err(failed)?;
    make_dir(target)?;
    let options = format!(
        "mode=700,uid={},gid={},{WORK_LIMITS}",
        owner.uid(),
        owner.gid()
    );
    mount("tmpfs", target, SAFE, &options)?;
    copy(given, target).map_err(failed)
}

/// Plain files and folders with their owners; we made them ourselves, so they are few and not deep.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for one in fs::read_dir(from)? {
        let one = one?;
        let (source, target) = (one.path(), to.join(one.file_name()));
        let found = one.metadata()?;
        if found.is_dir() {
            fs::create_dir(&target)?;
            fs::set_permissions(&target, found.permissions())?;
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target)?;
        }
        chown(&target, Some(found.uid()), Some(found.gid()))?;
    }
    Ok(())
}

fn system_dir(root: &Path, name: &str) -> Setup<()> {
    let host = Path::new("/").join(name);
    let target = root.join(name);
    if let Ok(link) = fs::read_link(&host) {
        return symlink(link, &target)
            .map_err(|error| SetupError::new(format!("link /{name}"), error));
    }
    if is_real_dir(&host) {
        make_dir(&target)?;
        bind_read_only(&host, &target)?;
    }
    Ok(())
}

fn etc(root: &Path) -> Setup<()> {
    let folder = root.join("etc");
    make_dir(&folder)?;
    for name in ETC {
        // A link is followed: its target may lie where the step cannot see it.
        let Ok(host) = Path::new("/etc").join(name).canonicalize() else {
            continue;
        };
        let target = folder.join(name);
        if host.is_dir() {
            make_dir(&target)?;
        } else {
            write(&target, "")?;
        }
        bind_read_only(&host, &target)?;
    }
    write(
        &folder.join("passwd"),
        "step:x:1000:1000::/work:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )?;
    write(&folder.join("group"), "step:x:1000:\nnogroup:x:65534:\n")
}

fn devices(root: &Path) -> Setup<()> {
    let folder = root.join("dev");
    make_dir(&folder)?;
    for (name, host) in DEVICES {
        let target = folder.join(name);
        write(&target, "")?;
        bind(&Path::new("/dev").join(host), &target)?;
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        symlink(to, folder.join(name))
            .map_err(|error| SetupError::new(format!("link /dev/{name}"), error))?;
    }
    Ok(())
}

/// Where a host path appears below the new root.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn make_dir(path: &Path) -> Setup<()> {
    fs::create_dir_all(path)
        .map_err(|error| SetupError::new(format!("make {}", path.display()), error))
}

fn write(path: &Path, content: &str) -> Setup<()> {
    fs::write(path, content)
        .map_err(|error| SetupError::new(format!("write {}", path.display()), error))
}

fn bind(from: &Path, to: &Path) -> Setup<()> {
    // Recursive: without it an ordinary user could uncover what is mounted over, so the kernel refuses.
    rustix::mount::mount_bind_recursive(from, to)
        .map_err(|error| SetupError::new(format!("mount {}", to.display()), error))
}

fn bind_read_only(from: &Path, to: &Path) -> Setup<()> {
    bind(from, to)?;
    restrict(
        to,
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        true,
    )
}

/// A file system without a device behind it, `proc` or `tmpfs`.
fn mount(kind: &str, to: &Path, flags: MountFlags, options: &str) -> Setup<()> {
    rustix::mount::mount(kind, to, kind, flags, &*text(options)?)
        .map_err(|error| SetupError::new(format!("mount {}", to.display()), error))
}

/// Adds restrictions to a mount (and, recursively, to what is mounted below); needs Linux 5.12.
fn restrict(path: &Path, set: u64, recursive: bool) -> Setup<()> {
    let target = text(path)?;
    let change = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path and struct outlive the call, the size is the struct's own.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            flags,
            &raw const change,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    check(result, || {
        format!("restrict {} (needs Linux 5.12)", path.display())
    })?;
    Ok(())
}

/// Makes `root` the root and lets go of the old one.
fn pivot(root: &Path) -> Setup<()> {
    std::env::set_current_dir(root)
        .map_err(|error| SetupError::new("enter the new root", error))?;
    // Old and new root on the same place: the old one ends up on top.
    rustix::process::pivot_root(".", ".")
        .map_err(|error| SetupError::new("change the root", error))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)
        .map_err(|error| SetupError::new("let go of the old root", error))?;
    std::env::set_current_dir("/").map_err(|error| SetupError::new("enter the new root", error))
}
