//! `kedge down`.

use anyhow::Result;

use crate::arguments::{DownFlags, Output};
use crate::output::Steps;

pub(crate) async fn run(flags: DownFlags) -> Result<()> {
    let steps = Steps::new(flags.output == Output::Json);
    let report =
        kedge_supervisor::down(&flags.data_dir.data_dir, flags.delete_data, |progress| steps.show(progress)).await?;
    match flags.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Text if report.found_nothing() => {
            println!("nothing to do: no cluster in {}", flags.data_dir.data_dir.display());
        }
        Output::Text => {
            println!("the cluster is down: {} pods were stopped", report.pods);
            if flags.delete_data {
                println!("its data in {} is deleted", flags.data_dir.data_dir.display());
            } else {
                println!("its data is kept in {}; `kedge up` goes on with it", flags.data_dir.data_dir.display());
            }
        }
    }
    Ok(())
}
