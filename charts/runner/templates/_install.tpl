{{/* Labels of what stands for good. */}}
{{- define "runner.labels" -}}
{{- dict "app.kubernetes.io/name" "runner" "app.kubernetes.io/component" . "app.kubernetes.io/managed-by" "runner" | toRawJson -}}
{{- end -}}

{{/* What of the defaults is not in the values, as null: values that lie over the defaults again, as `--values` does. */}}
{{- define "runner.over" -}}
{{- $over := deepCopy .values -}}
{{- range $key, $default := .defaults -}}
  {{- if not (hasKey $over $key) -}}
    {{- $_ := set $over $key nil -}}
  {{- else if and (kindIs "map" $default) (kindIs "map" (get $over $key)) -}}
    {{- $_ := set $over $key (include "runner.over" (dict "values" (get $over $key) "defaults" $default) | fromJson) -}}
  {{- end -}}
{{- end -}}
{{- $over | toRawJson -}}
{{- end -}}

{{/* The run file of the pipeline: what every day has in common. */}}
{{- define "runner.pipeline.run" -}}
{{- $run := omit (include "runner.bare" .Values.run | fromJson).v "enabled" "stage" "select" "parent" "startDate" "endDate" -}}
{{- range list "startDate" "endDate" "parent" -}}
  {{- if get $.Values.run . }}{{ fail (printf "run.%s: the pipeline finds its days itself; take it out" .) }}{{ end -}}
{{- end -}}
{{- $run | toPrettyJson | include "runner.printable" -}}
{{- end -}}

{{/* The values of its runs' pods; their account is the one that is made here unless another one is named. */}}
{{- define "runner.pipeline.values" -}}
{{- $pod := .pod -}}
{{- if not $pod.serviceAccountName }}{{ $_ := set $pod "serviceAccountName" .account }}{{ end -}}
{{- dict "pod" (include "runner.over" (dict "values" $pod "defaults" .defaults) | fromJson) | toPrettyJson | include "runner.printable" -}}
{{- end -}}

{{- define "runner.pipeline.name" -}}
{{- printf "%s-pipeline" (trunc 43 .Release.Name | trimSuffix "-") -}}
{{- end -}}
