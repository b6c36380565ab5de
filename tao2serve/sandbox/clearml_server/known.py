"""The names of ClearML's endpoints, by service, as clients know them."""

from __future__ import annotations

from collections.abc import Mapping

_ACTIONS: Mapping[str, str] = {
    "auth": ("create_credentials edit_credentials edit_user get_credentials login revoke_credentials validate_token"),
    "debug": ("ping"),
    "events": (
        "add add_batch clear_scroll clear_task_log debug_images delete_for_model delete_for_task "
        "download_task_log get_debug_image_sample get_multi_task_plots get_plot_sample "
        "get_scalar_metric_data get_scalar_metrics_and_variants get_task_events "
        "get_task_latest_scalar_values get_task_log get_task_metrics get_task_plots "
        "get_task_single_value_metrics get_vector_metrics_and_variants "
        "multi_task_scalar_metrics_iter_histogram next_debug_image_sample next_plot_sample plots "
        "scalar_metrics_iter_histogram scalar_metrics_iter_raw vector_metrics_iter_histogram"
    ),
    "login": ("supported_modes"),
    "models": (
        "add_or_update_metadata archive_many create delete delete_many delete_metadata edit get_all "
        "get_all_ex get_by_id get_by_task_id get_frameworks make_private make_public move "
        "publish_many set_ready unarchive_many update update_for_task"
    ),
    "organization": ("get_entities_count get_tags get_user_companies"),
    "pipelines": ("start_pipeline"),
    "projects": (
        "create delete get_all get_all_ex get_by_id get_hyper_parameters get_hyperparam_values "
        "get_model_metadata_keys get_model_metadata_values get_model_tags get_project_tags "
        "get_task_parents get_task_tags get_unique_metric_variants make_private make_public merge "
        "move update validate_delete"
    ),
    "queues": (
        "add_or_update_metadata add_task create delete delete_metadata get_all get_all_ex get_by_id "
        "get_default get_next_task get_num_entries get_queue_metrics move_task_backward "
        "move_task_forward move_task_to_back move_task_to_front peek_task remove_task update"
    ),
    "server": ("config endpoints info"),
    "serving": ("container_status_report get_endpoints register_container"),
    "tasks": (
        "add_or_update_artifacts add_or_update_model archive archive_many clone close completed "
        "create delete delete_artifacts delete_configuration delete_hyper_params delete_many "
        "delete_models dequeue dequeue_many edit edit_configuration edit_hyper_params enqueue "
        "enqueue_many failed get_all get_all_ex get_by_id get_by_id_ex get_configuration_names "
        "get_configurations get_hyper_params get_types make_private make_public move ping publish "
        "publish_many reset reset_many set_requirements share started stop stop_many stopped "
        "unarchive_many update update_batch validate"
    ),
    "users": ("get_all get_current_user get_preferences set_preferences"),
    "workers": ("get_activity_report get_all get_metric_keys get_stats register status_report unregister"),
}

KNOWN = frozenset(f"{service}.{action}" for service, actions in _ACTIONS.items() for action in actions.split())
