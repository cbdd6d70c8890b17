"""What a job takes: seconds, memory, disk. One model feeds the plan and each rule's resources. Light."""
