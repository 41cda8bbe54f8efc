{
  "targets": [
    {
      "target_name": "sdpo",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake_js",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["<(PRODUCT_DIR)/sdpo.node"],
          "action": ["node", "native/build.mjs"]
        }
      ]
    }
  ]
}
