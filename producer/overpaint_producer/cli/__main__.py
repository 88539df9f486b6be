from overpaint_producer.cli import main

main(prog_name="overpaint")
