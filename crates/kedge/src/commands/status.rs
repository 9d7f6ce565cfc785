//! `kedge status`: the typed status of every component.

use std::net::SocketAddr;

use anyhow::Result;
use jiff::Timestamp;
use kedge_meta::ComponentReport;

use crate::arguments::{Output, StatusFlags};
use crate::output::table;

pub(crate) async fn run(flags: StatusFlags) -> Result<()> {
    let status = kedge_supervisor::status(&flags.data_dir.data_dir).await?;
    match flags.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Output::Text => {
            let own = || format!("https://{}", SocketAddr::new(status.run.node_ip, status.run.secure_port));
            println!(
                "node {} ({}), API server {}, process {}, up {}",
                status.run.node_name,
                status.run.node_ip,
                status.run.joined.clone().unwrap_or_else(own),
                status.run.pid,
                age(status.run.started, Timestamp::now()),
            );
            println!();
            print!("{}", render(&status.components, Timestamp::now()));
        }
    }
    Ok(())
}

fn render(reports: &[ComponentReport], now: Timestamp) -> String {
    let head = ["COMPONENT", "STATE", "FOR", "LATENCY", "LAST SEEN", "REASON"];
    let mut rows = vec![head.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>()];
    for report in reports {
        let latency =
            report.latency_micros.map_or("-".to_owned(), |micros| format!("{:.1} ms", micros as f64 / 1000.0));
        let reason = match (report.reason.as_str(), report.message.as_str()) {
            ("", "") => String::new(),
            (reason, "") => reason.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        };
        rows.push(vec![
            report.component.clone(),
            format!("{:?}", report.state),
            age(report.since, now),
            latency,
            format!("{} ago", age(report.heartbeat, now)),
            reason,
        ]);
    }
    table(&rows)
}

fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = (now.as_second() - since.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_meta::ComponentState;

    #[test]
    fn a_report_is_one_line() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let report = ComponentReport {
            component: "kube-proxy".to_owned(),
            state: ComponentState::Degraded,
            reason: "SyncFailed".to_owned(),
            message: "nft is missing".to_owned(),
            since: at(0),
            heartbeat: at(595),
            latency_micros: Some(1500),
        };
        let text = render(&[report], at(600));
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line, "kube-proxy   Degraded   10m   1.5 ms    5s ago      SyncFailed: nft is missing");
    }
}
