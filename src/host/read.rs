//! Reading what the kernel tells of its limits. Everything comes out of files below one root, so
//! that tests can show a host that does not exist. What cannot be read is `None`, never a guess.

use std::fs;
use std::path::PathBuf;

/// A host, by the files in which its kernel describes it.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The one that this process runs on.
    pub fn here() -> Host {
        Host::at("/")
    }

    /// The one whose `proc` and `sys` lie in this folder.
    pub(crate) fn at(root: impl Into<PathBuf>) -> Host {
        Host { root: root.into() }
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok().map(|text| text.trim().to_owned())
    }

    /// A sysctl by its dotted name.
    pub fn sysctl(&self, name: &str) -> Option<String> {
        self.read(&format!("proc/sys/{}", name.replace('.', "/")))
    }

    /// One number of a sysctl that may hold several.
    pub fn sysctl_number(&self, name: &str, column: usize) -> Option<i64> {
        self.sysctl(name)?.split_whitespace().nth(column)?.parse().ok()
    }

    /// The hard limit of open descriptors; `u64::MAX` if there is none.
    pub fn descriptor_limit(&self) -> Option<u64> {
        let limits = self.read("proc/self/limits")?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        match line.split_whitespace().nth(1)? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        }
    }

    /// A line of this process's status.
    pub fn status_field(&self, name: &str) -> Option<String> {
        let status = self.read("proc/self/status")?;
        status.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned())
    }

    /// Whether this process has CAP_SYS_ADMIN.
    pub fn is_admin(&self) -> bool {
        const CAP_SYS_ADMIN: u32 = 21;
        let effective = self.status_field("CapEff:");
        let bits = effective.and_then(|text| u64::from_str_radix(&text, 16).ok()).unwrap_or(0);
        bits >> CAP_SYS_ADMIN & 1 == 1
    }

    /// The groups that this process is in.
    pub fn groups(&self) -> Vec<i64> {
        let fields = ["Gid:", "Groups:"].map(|name| self.status_field(name).unwrap_or_default());
        let ids = fields.iter().flat_map(|field| field.split_whitespace());
        ids.filter_map(|id| id.parse().ok()).collect()
    }

    /// The cores that this process may use: those of its affinity, or fewer by a cgroup's quota.
    pub fn cores(&self) -> Option<f64> {
        let list = self.status_field("Cpus_allowed_list:")?;
        let ranges = list.split(',').map(|range| match range.split_once('-') {
            Some((first, last)) => Some(last.parse::<u32>().ok()? - first.parse::<u32>().ok()? + 1),
            None => range.parse::<u32>().ok().map(|_| 1),
        });
        let affinity = f64::from(ranges.sum::<Option<u32>>()?);
        Some(self.cpu_quota().map_or(affinity, |quota| quota.min(affinity)))
    }

    /// `max 100000`, or `150000 100000` for one and a half cores (cgroup v2).
    fn cpu_quota(&self) -> Option<f64> {
        let text = self.read("sys/fs/cgroup/cpu.max")?;
        let (quota, period) = text.split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    }

    /// Memory that can be had: what the kernel says is available, or less by a cgroup's limit.
    pub fn memory_available_bytes(&self) -> Option<u64> {
        let available = kib_field(&self.read("proc/meminfo")?, "MemAvailable:")?;
        let number = |name: &str| -> Option<u64> {
            self.read(&format!("sys/fs/cgroup/memory.{name}"))?.parse().ok()
        };
        let limit = number("max").zip(number("current"));
        let left = limit.map(|(most, used)| most.saturating_sub(used));
        Some(left.map_or(available, |left| left.min(available)))
    }

    /// Memory that nobody holds, not even the page cache.
    pub fn memory_free_bytes(&self) -> Option<u64> {
        kib_field(&self.read("proc/meminfo")?, "MemFree:")
    }
}

/// The value in bytes of a line like `Rss:   120 kB`.
pub fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}
