// Renders Go templates as Ollama does: reads [{"template": …, "messages": […], "tools": […]}] from standard input and writes a
// JSON list of the rendered texts.
//
// The types have the fields, the order and the JSON of those that Ollama passes to a template (template/template.go and
// api/types.go, read on 26 November 2026): .Messages with Role, Content, Thinking and ToolCalls, and .Tools. Maps are sorted by
// key, as Go marshals them.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type call struct {
	Function struct {
		Name      string
		Arguments map[string]any
	}
}

type message struct {
	Role, Content string
	Thinking      string `json:"reasoning_content"`
	ToolCalls     []call `json:"tool_calls"`
}

type property struct {
	Type        any    `json:"type,omitempty"`
	Items       any    `json:"items,omitempty"`
	Description string `json:"description,omitempty"`
	Enum        []any  `json:"enum,omitempty"`
}

type parameters struct {
	Type       string              `json:"type"`
	Required   []string            `json:"required,omitempty"`
	Properties map[string]property `json:"properties"`
}

type tool struct {
	Type     string `json:"type"`
	Function struct {
		Name        string     `json:"name"`
		Description string     `json:"description"`
		Parameters  parameters `json:"parameters"`
	} `json:"function"`
}

type request struct {
	Template string
	Messages []*message
	Tools    []tool
}

func asJson(value any) string {
	text, _ := json.Marshal(value)
	return string(text)
}

func main() {
	var requests []request
	if err := json.NewDecoder(os.Stdin).Decode(&requests); err != nil {
		panic(err)
	}
	texts := make([]string, len(requests))
	for i, r := range requests {
		functions := template.FuncMap{"json": asJson}
		parsed := template.Must(template.New("").Option("missingkey=zero").Funcs(functions).Parse(r.Template))
		var text strings.Builder
		values := map[string]any{"Messages": r.Messages, "Tools": r.Tools, "System": "", "Response": ""}
		if err := parsed.Execute(&text, values); err != nil {
			panic(err)
		}
		texts[i] = text.String()
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(texts); err != nil {
		panic(err)
	}
}
