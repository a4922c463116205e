use clap::CommandFactory;

use super::{Place, holds};

#[test]
fn every_command_lists_its_flags() {
    let place = Place::new();
    let commands = [
        (
            "train",
            "quiet verbose json tensorboard data dataset recipe run resume size stored batch batch-cluster epochs clusters lr balance merge init-batches \
             update-every kmeans-iters weights laterals eval-size seed limit device strict no-exif no-cache split val-split classes",
        ),
        (
            "eval",
            "checkpoint data dataset size split json classifier tta flip-tta strict no-exif no-cache limit classes device",
        ),
        (
            "baselines",
            "data dataset split train-split clusters size classes seeds matching weights json limit strict device",
        ),
        ("segment", "checkpoint out size flip scales cutouts scores no-exif json device"),
        (
            "compare",
            "checkpoint data dataset split classes images show limit strict out json device",
        ),
        ("name", "checkpoint json"),
        ("recluster", "checkpoint data split clusters out limit json device"),
        (
            "neighbors",
            "checkpoint data dataset split query top every-pixel limit strict out device",
        ),
        (
            "bench",
            "recipe data images epochs seconds noise warm-up top json against fail-above ignore-device from report trace csv \
             model device",
        ),
        ("scenes", "train val seed json"),
        ("recipes", "json"),
        ("info", "json"),
        ("export", "checkpoint onnx torch folder json"),
        ("devices", "json"),
        ("cache", "clear json"),
        ("completions", ""),
        ("man", "out"),
    ];
    let all = place.picie("--help").succeeds().out;
    for (command, flags) in commands {
        holds(&all, &[command]);
        let help = place.picie(&format!("{command} --help")).succeeds().out;
        for flag in flags.split_whitespace() {
            // The end of a word, so that --batch is not found in --batch-cluster.
            let listed = help.split_whitespace().any(|word| word == format!("--{flag}"));
            assert!(listed, "{command} does not list --{flag}:\n{help}");
        }
    }
    let values =
        "coco-stuff cityscapes folder demo picie size inverse none direct cascade auto cpu";
    let help = place.picie("train --help").out;
    holds(&help, &values.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn help_fits_a_terminal_stands_in_groups_and_has_examples() {
    let place = Place::new();
    let args = picie::cli::args::Args::command();
    for command in args.get_subcommands().map(|command| command.get_name()) {
        for flag in ["-h", "--help"] {
            let help = place.picie(&format!("{command} {flag}")).succeeds().out;
            let wide = help.lines().find(|line| line.chars().count() > 80);
            assert!(wide.is_none(), "{command} {flag}: {wide:?}");
            holds(&help, &["Examples:", &format!("  picie {command}")]);
        }
    }
    let wide = place.picie("--help").out.lines().any(|line| line.chars().count() > 80);
    assert!(!wide, "picie --help");
    let groups = ["\nData:", "\nRecipe:", "\nOutput:", "\nEngine:", "\nExpert:"];
    holds(&place.picie("train --help").out, &groups);
}

#[test]
fn a_recipe_shows_the_numbers_that_set_takes() {
    let place = Place::new();
    let all = place.picie("recipes").succeeds().out;
    assert!(all.lines().all(|line| line.split_whitespace().count() > 3), "{all}");
    holds(&all, &["picie-released", "photos "]);
    let photos = place.picie("recipes photos").succeeds().out;
    let value = |name: &str| {
        let line = photos.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(1)).map(str::to_string)
    };
    let recipe = picie::recipe::Recipe::photos();
    assert_eq!(value("batch"), Some(recipe.batch.to_string()), "{photos}");
    assert_eq!(value("lr_decay"), Some("linear".into()), "{photos}");
    assert_eq!(value("augment.grey_p"), Some(recipe.augment.grey_p.to_string()), "{photos}");
    let json = place.picie("recipes photos --json").succeeds().out;
    assert_eq!(serde_json::from_str::<picie::recipe::Recipe>(&json).unwrap(), recipe);
}

#[test]
fn a_recipe_may_be_a_file_or_that_of_a_run() {
    let place = Place::new();
    let mine = place.picie("recipes mdc --json").succeeds().out;
    let tiny = super::TINY;
    let data = super::scenes().display();
    let write = |text: &str| std::fs::write(place.join("mine.json"), text).unwrap();
    write(&mine.replace("\"lr\":0.001", "\"lr\":0.25"));
    let plan = format!("train --recipe mine.json --data {data} {tiny} --plan --verbose");
    holds(&place.picie(&plan).succeeds().err, &["\"lr\":0.25", "\"method\":\"mdc\""]);
    let run = super::trained().join("run.json");
    let again = format!("train --recipe {} --data {data} --plan --verbose", run.display());
    holds(&place.picie(&again).succeeds().err, &["\"clusters\":9", "\"batch\":2,"]);
    for (text, why) in [
        (mine.replace("\"kmeans_iters\"", "\"kmeans_iter\""), "kmeans_iter: kmeans_iters is meant"),
        (mine.replace("\"grey_p\":", "\"gray_p\":"), "augment.gray_p: augment.grey_p is meant"),
        (mine.replace("\"lr\":0.001,", ""), "lr is missing"),
        (mine.replace("\"lr\":0.001", "\"lr\":\"fast\""), "mine.json: no recipe (invalid type"),
        ("[1, 2".to_string(), "mine.json: no JSON"),
    ] {
        write(&text);
        let why_not = place.picie(&plan).fails();
        holds(&why_not, &[why]);
    }
}

#[test]
fn the_environment_may_name_the_engine() {
    let place = Place::new();
    let wrong = [("PICIE_DEVICE", "gpu", "--device"), ("PICIE_PRECISION", "f8", "--precision")];
    for (name, value, flag) in wrong {
        let ran = place.shell(&format!("export {name}={value}"), "train --plan");
        assert_eq!(ran.code, Some(2), "{ran:?}");
        holds(&ran.err, &[value, flag]);
    }
    // A flag says more than the environment.
    let asked = place.shell("export PICIE_DEVICE=gpu", "bench --device cpu --images 0");
    assert!(!asked.err.contains("--device"), "{asked:?}");
}

#[test]
fn a_sweep_checks_every_value_before_its_first_run() {
    let place = Place::new();
    for (words, why) in [
        ("sweep lr --values 1e-4,-1 --data .", "--lr -1"),
        ("sweep clusters --values 8,many --data .", "clusters=many"),
        ("sweep recipe --values mdc,best --data .", "best is no value of recipe"),
    ] {
        holds(&place.picie(words).fails(), &[why]);
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn the_version_says_what_was_built() {
    let place = Place::new();
    let short = place.picie("-V").succeeds().out;
    assert_eq!(short, format!("picie {}\n", env!("CARGO_PKG_VERSION")));
    let long = place.picie("--version").succeeds().out;
    holds(&long, &[short.trim(), "\ncommit: ", "\nCUDA kernels: "]);
    let kernels = picie::device::cuda::missing_kernels().is_none();
    assert_eq!(long.contains("sm_90"), kernels, "{long}");
    assert_eq!(long.contains("by nvcc "), kernels, "{long}");
}

#[test]
fn shells_and_man_know_every_command() {
    let place = Place::new();
    let commands = picie::cli::args::Args::command();
    let names: Vec<&str> = commands.get_subcommands().map(|c| c.get_name()).collect();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.picie(&format!("completions {shell}")).succeeds().out;
        holds(&script, &names);
        holds(&script, &["tensorboard"]);
    }
    assert_eq!(place.picie("completions cmd").code, Some(2));
    let page = place.picie("man").succeeds().out;
    holds(&page, &[".TH picie 1", "picie\\-train(1)"]);
    holds(&place.picie("man --out pages").succeeds().out, &["19 pages"]);
    for name in names {
        let page = std::fs::read_to_string(place.join(format!("pages/picie-{name}.1"))).unwrap();
        holds(&page, &[".TH", &format!("picie\\-{name}"), ".SH OPTIONS"]);
    }
}

#[test]
fn every_flag_says_what_it_does() {
    let args = picie::cli::args::Args::command();
    let mut seen = 0;
    for command in args.get_subcommands() {
        for flag in command.get_arguments().filter(|a| a.get_id() != "help") {
            assert!(
                flag.get_help().is_some(),
                "{} {} has no help",
                command.get_name(),
                flag.get_id()
            );
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} flags seen");
}

#[test]
fn what_cannot_be_understood_exits_with_2_and_touches_nothing() {
    let place = Place::new();
    let wrong = [
        ("", "Usage: picie"),
        ("trian", "unrecognized subcommand 'trian'"),
        ("train --sise 32", "--size"),
        ("train --size big", "invalid value 'big' for '--size <R>'"),
        ("train --epochs -1", "unexpected argument '-1'"),
        ("train --dataset imagenet", "coco-stuff, cityscapes, potsdam, voc"),
        ("train --recipe best", "demo, photos, picie, picie-released"),
        ("train --balance equal", "size, inverse, none"),
        ("train --merge sum", "direct, cascade"),
        ("train --device gpu", "auto, cpu"),
        ("train --lr fast", "--lr"),
        ("eval --data .", "--checkpoint <FILE>"),
        ("eval --checkpoint x", "--data <DIR>"),
        ("baselines --data x", "--clusters <K>"),
        ("segment --checkpoint x --out y", "<IMAGE>"),
        ("segment --checkpoint x y.jpg", "--out <DIR>"),
        ("scenes", "<DIR>"),
        ("scenes x --train many", "--train"),
    ];
    for (words, why) in wrong {
        let ran = place.picie(words);
        assert_eq!(ran.code, Some(2), "{words}: {ran:?}");
        holds(&ran.err, &[why]);
        assert!(ran.out.is_empty(), "{words}: {ran:?}");
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    assert!(!place.cache().exists());
}

#[test]
fn devices_are_shown() {
    holds(&Place::new().picie("devices").succeeds().out, &["cpu", "threads", "cuda"]);
}
